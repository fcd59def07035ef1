/* fill STATE_DIR PRICES NODES FINISHED WAITING: makes the database of a coordinator that has seen
 * much: NODES nodes of 8 accelerators, FINISHED no-op jobs that ran on them, WAITING jobs of all
 * nodes, of which the first is drained then. All of it goes through the core, the pump and the real
 * store, as if workers had reported it; only the sockets are missing. Prints {"seconds": S} as
 * JSON. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/pump.h"
#include "daemon/prices.h"
#include "daemon/store.h"
#include "lib/clock.h"
#include "lib/mem.h"
#include "proto/jobspec.h"

#define GPUS  8
#define BATCH 1024 /* inputs of one transaction */

struct running {
    uint64_t job, epoch;
    session_id session;
};

static struct core *core;
static struct store *store;
static struct pump *pump;
static int64_t now_ms = 1700000000000, gap_ms = 7; /* between two inputs */
static size_t inputs, refused;
static struct running *running;
static size_t running_count, running_capacity;

static void fail(const struct err *err)
{
    fprintf(stderr, "fill: %s\n", err->text);
    exit(1);
}

static void release(void *world, const struct effect *e)
{
    (void)world;
    if (e->kind == EFFECT_ATTEMPT_START) {
        void *items = running;
        mem_grow(&items, &running_capacity, running_count + 1, sizeof *running);
        running = items;
        running[running_count++] = (struct running){e->u.start.job, e->u.start.epoch, e->session};
    } else if (e->kind == EFFECT_REPLY && e->u.reply.code != 0) {
        refused++;
        fprintf(stderr, "fill: refused: %s\n", e->u.reply.text);
    }
}
static const struct effect_sink sink = {release};

static void flush(void)
{
    struct err err = {0};
    if (pump_flush(pump, &err) != 0 || store_checkpoint_wal(store, &err) != 0) {
        fail(&err);
    }
}

static void give(struct input *in)
{
    in->token = 1;
    in->now_ms = now_ms += gap_ms;
    pump_input(pump, in);
    if (++inputs % BATCH == 0) {
        flush();
    }
}

static void add_node(int number)
{
    char name[32], uuids[GPUS][32];
    struct input_gpu gpus[GPUS];
    snprintf(name, sizeof name, "gpu%05d", number);
    for (uint32_t g = 0; g < GPUS; g++) {
        snprintf(uuids[g], sizeof uuids[g], "GPU-%05d-%" PRIu32, number, g);
        gpus[g] = (struct input_gpu){g, uuids[g], "NVIDIA H800", 85899345920, "ok"};
    }
    struct input in = {.kind = INPUT_WORKER_REGISTER, .session = (session_id)number};
    in.u.reg = (struct input_register){.name = name,
                                       .boot_id = "b",
                                       .version = "1",
                                       .addr = "127.0.0.1",
                                       .gpus = gpus,
                                       .gpu_count = GPUS};
    give(&in);
}

static void submit(struct jobspec *spec, const char *json)
{
    struct input in = {.kind = INPUT_JOB_SUBMIT};
    in.u.submit = (struct input_submit){
        .spec = spec,
        .spec_json = json,
        .workdir = "/",
        .user = "root",
        .request_hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"};
    give(&in);
}

static void report(const struct running *r, uint32_t phase)
{
    struct input_exit well = {.at_ms = now_ms};
    struct input in = {.kind = INPUT_ATTEMPT_REPORT, .session = r->session};
    in.u.attempt = (struct input_attempt_report){
        .job = r->job, .epoch = r->epoch, .phase = phase, .exits = &well, .exit_count = phase == 3};
    give(&in);
}

/* Whatever has been started ends, and lets others start, until nothing runs. */
static void drain(void)
{
    flush();
    while (running_count > 0) {
        struct running *round = running;
        size_t count = running_count;
        running = NULL;
        running_count = running_capacity = 0;
        for (uint32_t phase = 2; phase <= 3; phase++) {
            for (size_t i = 0; i < count; i++) {
                report(&round[i], phase);
            }
        }
        free(round);
        give(&(struct input){.kind = INPUT_TICK});
        flush();
    }
}

/* at_a_time: so many are submitted, then they run to their end; 0: they wait. */
static void make_jobs(const char *yaml, long count, long at_a_time)
{
    struct jobspec spec;
    struct err err = {0};
    if (jobspec_parse(&spec, yaml, strlen(yaml), "noop.yaml", "/", NULL, 0, &err) != 0) {
        fail(&err);
    }
    char *json = jobspec_to_json(&spec);
    for (long i = 1; i <= count; i++) {
        submit(&spec, json);
        if (at_a_time > 0 && (i % at_a_time == 0 || i == count)) {
            drain();
        }
    }
    free(json);
    jobspec_fini(&spec);
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "use: fill STATE_DIR PRICES NODES FINISHED WAITING\n");
        return 2;
    }
    int nodes = atoi(argv[3]);
    struct err err = {0};
    struct core_config config;
    core_config_default(&config);
    core = core_create(&config);
    if (store_open(&store, argv[1], &err) != 0 || prices_load(store, argv[2], &err) != 0 ||
        store_load(store, core, now_ms, &err) != 0) {
        fail(&err);
    }
    pump = pump_create(core, &store_sqlite_ops, store, &sink, NULL);
    int64_t began = clock_boot_ns();
    for (int i = 1; i <= nodes; i++) {
        add_node(i);
    }
    make_jobs("name: noop\nnodes: 1\ngpus_per_node: 1\ncommand: [\"true\"]\n", atol(argv[4]),
              (long)nodes * GPUS);
    if (atol(argv[5]) > 0) {
        const char *first = "gpu00001";
        char yaml[128];
        struct input drain = {.kind = INPUT_NODE_DRAIN};
        drain.u.node.name = first;
        drain.u.node.user = "root";
        drain.u.node.reason = "bench";
        give(&drain);
        gap_ms = 0; /* else the scheduler would look at them all again and again */
        snprintf(yaml, sizeof yaml,
                 "name: gang\nnodes: %d\ngpus_per_node: 1\ncommand: [\"true\"]\n", nodes);
        make_jobs(yaml, atol(argv[5]), 0);
    }
    flush();
    printf("{\"seconds\": %.1f}\n", (double)(clock_boot_ns() - began) / 1e9);
    pump_destroy(pump);
    core_destroy(core);
    store_close(store);
    return refused > 0;
}
