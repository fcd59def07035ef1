/* What a person at a terminal feels.
 *
 * ask ADDRESS first MS        tries until somebody answers CLUSTER_STATUS, for MS at most; prints
 * how long that took ask ADDRESS load SECONDS    asks for the state of the cluster, submits a held
 * job and shows it, a request every 10 ms; prints how long the answers took */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"
#include "proto/client.h"
#include "tests/bench/latency.h"

#define WAIT_MS  60000
#define PAUSE_MS 10
#define RETRY_MS 2

static const char *address;

static int status(struct client *client, struct err *err)
{
    Ds__Empty empty = DS__EMPTY__INIT;
    ProtobufCMessage *reply = NULL;
    int rc = client_call(client, RPC_CLUSTER_STATUS, &empty.base, &reply, WAIT_MS, err);
    rpc_free(reply);
    return rc;
}

static int submit(struct client *client, uint64_t *job, struct err *err)
{
    char spec[] = "name: asked\nnodes: 1\ngpus_per_node: 0\nhold: true\ncommand: [\"true\"]\n";
    char name[] = "asked.yaml", root[] = "/";
    Ds__JobSubmit request = DS__JOB_SUBMIT__INIT;
    ProtobufCMessage *reply = NULL;
    request.spec = spec;
    request.spec_name = name;
    request.spec_dir = request.workdir = root;
    TRY(client_call(client, RPC_JOB_SUBMIT, &request.base, &reply, WAIT_MS, err));
    *job = ((const Ds__JobSubmitReply *)reply)->id;
    rpc_free(reply);
    return 0;
}

static int show(struct client *client, uint64_t job, struct err *err)
{
    Ds__JobId request = DS__JOB_ID__INIT;
    ProtobufCMessage *reply = NULL;
    request.id = job;
    int rc = client_call(client, RPC_JOB_SHOW, &request.base, &reply, WAIT_MS, err);
    rpc_free(reply);
    return rc;
}

static int ask_for(struct client *client, int64_t ms, struct err *err)
{
    struct latency latency = {0};
    int64_t end_ms = clock_boot_ms() + ms;
    uint64_t job = 0;
    for (int turn = 0; clock_boot_ms() < end_ms; turn++) {
        int64_t began = clock_boot_ns();
        int rc = turn % 3 == 0   ? status(client, err)
                 : turn % 3 == 1 ? submit(client, &job, err)
                                 : show(client, job, err);
        if (rc != 0) {
            return rc;
        }
        latency_add(&latency, clock_boot_ns() - began);
        clock_sleep_ms(PAUSE_MS);
    }
    latency_print(&latency);
    latency_fini(&latency);
    return 0;
}

static int first_answer(int64_t ms, struct err *err)
{
    int64_t began = clock_boot_ns(), end_ms = clock_boot_ms() + ms;
    int rc;
    do {
        struct client *client = NULL;
        rc = client_connect(&client, address, "bench", WAIT_MS, err);
        rc = rc == 0 ? status(client, err) : rc;
        client_destroy(client);
        if (rc == 0) {
            printf("{\"ms\": %.1f}\n", (double)(clock_boot_ns() - began) / 1e6);
            return 0;
        }
        clock_sleep_ms(RETRY_MS);
    } while (clock_boot_ms() < end_ms);
    return rc;
}

int main(int argc, char **argv)
{
    bool first = argc == 4 && strcmp(argv[2], "first") == 0;
    if (!first && (argc != 4 || strcmp(argv[2], "load") != 0)) {
        fprintf(stderr, "use: ask ADDRESS first MS | ask ADDRESS load SECONDS\n");
        return 2;
    }
    struct err err = {0};
    struct client *client = NULL;
    address = argv[1];
    int rc = first ? 0 : client_connect(&client, address, "bench", WAIT_MS, &err);
    if (rc == 0) {
        rc =
            first ? first_answer(atol(argv[3]), &err) : ask_for(client, 1000 * atol(argv[3]), &err);
    }
    if (rc != 0) {
        fprintf(stderr, "ask: %s\n", err.text);
    }
    client_destroy(client);
    return err_exit_status(rc);
}
