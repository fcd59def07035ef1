/* submit ADDRESS COUNT DEPTH: submits COUNT jobs that do nothing through one connection, DEPTH
 * requests under way at once, and prints how long the last acknowledgement took. Each
 * acknowledgement means the job is on disk. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/clock.h"
#include "proto/client.h"

#define WAIT_MS 60000

static char spec[] = "name: noop\nnodes: 1\ngpus_per_node: 1\ncommand: [\"true\"]\n";
static char spec_name[] = "noop.yaml";
static char root[] = "/";

static int receive_one(struct client *client, struct err *err)
{
    uint64_t id;
    ProtobufCMessage *reply = NULL;
    int outcome = 0;
    TRY(client_receive(client, &id, &reply, &outcome, WAIT_MS, err));
    if (reply == NULL) {
        return outcome;
    }
    rpc_free(reply);
    return 0;
}

static int submit_all(const char *address, uint64_t count, uint64_t depth, struct err *err)
{
    struct client *client = NULL;
    int rc = client_connect(&client, address, "bench", WAIT_MS, err);
    if (rc != 0) {
        return rc;
    }
    Ds__JobSubmit request = DS__JOB_SUBMIT__INIT;
    request.spec = spec;
    request.spec_name = spec_name;
    request.spec_dir = root;
    request.workdir = root;
    int64_t began = clock_boot_ns();
    uint64_t sent = 0, answered = 0;
    while (answered < count) {
        if (sent < count && sent - answered < depth) {
            uint64_t id;
            TRY_GOTO(client_send(client, RPC_JOB_SUBMIT, &request.base, &id, err), done);
            sent++;
        } else {
            TRY_GOTO(receive_one(client, err), done);
            answered++;
        }
    }
    double seconds = (double)(clock_boot_ns() - began) / 1e9;
    printf("{\"jobs\": %" PRIu64 ", \"seconds\": %.3f}\n", count, seconds);
done:
    client_destroy(client);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "use: submit ADDRESS COUNT DEPTH\n");
        return 2;
    }
    struct err err = {0};
    int rc = submit_all(argv[1], strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10), &err);
    if (rc != 0) {
        fprintf(stderr, "submit: %s\n", err.text);
    }
    return err_exit_status(rc);
}
