/* sched [NODES [JOBS]]: one scheduling pass of the pure core over a full cluster and a long queue,
 * and what nodes and waiting jobs take of memory. Prints a line of JSON for each figure; the job
 * mix is drawn from a seed that is printed. */
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/core/job.h"
#include "daemon/core/load.h"
#include "daemon/core/sched.h"
#include "lib/clock.h"
#include "lib/mem.h"
#include "proto/jobspec.h"
#include "tests/unit/random.h"

#define GPUS   8
#define PASSES 21

static struct core *core;
static int64_t now_ms = 1700000000000;

static void step(struct input *in)
{
    in->now_ms = now_ms;
    core_step(core, in);
    effect_list_reset(&core->effects);
    core_committed(core);
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
                                       .addr = "10.0.0.1",
                                       .gpus = gpus,
                                       .gpu_count = GPUS};
    step(&in);
}

static void submit(uint32_t nodes, uint32_t gpus, uint64_t limit_s, int user)
{
    char yaml[512], name[16];
    struct err err;
    struct jobspec spec;
    snprintf(yaml, sizeof yaml,
             "name: train-%" PRIu64 "\naccount: team-%d\nnodes: %" PRIu32
             "\ngpus_per_node: %" PRIu32 "\ntime_limit: %" PRIu64
             "\ncommand: [python3, train.py, --config, configs/run.yaml]\n",
             core->next_job, user % 10, nodes, gpus, limit_s);
    snprintf(name, sizeof name, "user%d", user);
    if (jobspec_parse(&spec, yaml, strlen(yaml), "job.yaml", "/home/user", NULL, 0, &err) != 0) {
        fprintf(stderr, "sched: %s\n", err.text);
        exit(1);
    }
    char *json = jobspec_to_json(&spec);
    struct input in = {.kind = INPUT_JOB_SUBMIT};
    in.u.submit = (struct input_submit){
        .spec = &spec,
        .spec_json = json,
        .workdir = "/home/user/project",
        .user = name,
        .request_hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"};
    step(&in);
    free(json);
    jobspec_fini(&spec);
}

static size_t in_use(void)
{
    return mallinfo2().uordblks;
}

/* A power-law mix: many small short jobs, a few large long ones. */
static void submit_some(int count, uint32_t nodes_max)
{
    for (int i = 0; i < count; i++) {
        uint32_t nodes = 1u << random_below(8);
        nodes = random_one_in(4) ? nodes : 1;
        nodes = nodes < nodes_max ? nodes : nodes_max;
        uint32_t gpus = nodes > 1 ? GPUS : 1u << random_below(4);
        submit(nodes, gpus, 600 + random_below(100000), (int)random_below(200));
    }
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* A line for figures.py. most: the target; 0: none. */
static void figure(const char *what, double value, const char *unit, double most)
{
    printf("{\"what\": \"%s\", \"value\": %.3f, \"unit\": \"%s\"", what, value, unit);
    if (most > 0) {
        printf(", \"most\": %g", most);
    }
    puts("}");
}

/* Median of some passes over the same state; how many jobs each would start. */
static void measure(const char *what, bool whole, uint32_t depth)
{
    int64_t ns[PASSES];
    size_t starts = 0;
    clock_t cpu = clock();
    for (int i = 0; i < PASSES; i++) {
        struct sched_plan plan = {0};
        core->now_ms += 1000;
        int64_t began = clock_boot_ns();
        sched_pass(core, whole, depth, &plan);
        ns[i] = clock_boot_ns() - began;
        starts = plan.start_count;
        sched_plan_fini(&plan);
    }
    qsort(ns, PASSES, sizeof ns[0], compare);
    char text[160];
    snprintf(text, sizeof text, "%s: median of %d, %zu starts", what, PASSES, starts);
    figure(text, (double)ns[PASSES / 2] / 1e6, "ms", 50);
    double cpu_ms = (double)(clock() - cpu) * 1e3 / CLOCKS_PER_SEC / PASSES;
    figure("    CPU of it, on average", cpu_ms, "ms", 0);
}

/* The first running job of this size ends: its nodes are free, and nothing was planned yet. */
static void end_one(uint32_t nodes)
{
    for (struct job *job = core->job_first; job != NULL; job = job->next) {
        if (job->counted && job->attempt->node_count >= nodes) {
            struct input in = {.kind = INPUT_JOB_CANCEL};
            in.u.job.job = job->row.id;
            uint32_t count = job->attempt->node_count;
            uint64_t id = job->row.id;
            session_id *sessions = mem_alloc_array(count, sizeof *sessions);
            for (uint32_t k = 0; k < count; k++) {
                sessions[k] = job->attempt->nodes[k].node->session;
            }
            step(&in);
            core->whole_pass_ms = core->pass_ms = INT64_MAX; /* no pass of its own accord */
            for (uint32_t k = 0; k < count; k++) {
                struct input report = {.kind = INPUT_ATTEMPT_REPORT, .session = sessions[k]};
                report.u.attempt = (struct input_attempt_report){.job = id, .epoch = 1, .phase = 3};
                step(&report);
            }
            free(sessions);
            return;
        }
    }
}

int main(int argc, char **argv)
{
    int nodes = argc > 1 ? atoi(argv[1]) : 16384;
    int jobs = argc > 2 ? atoi(argv[2]) : 50000;
    if (nodes < 16 || jobs < 1) {
        fprintf(stderr, "use: sched [NODES [JOBS]], at least 16 nodes\n");
        return 2;
    }
    random_start("sched");
    struct core_config config;
    core_config_default(&config);
    core = core_create(&config);
    core_load_counters(
        core, &(struct core_counters){.term = 1, .now_ms = now_ms, .next_job = 1, .next_ckpt = 1});
    core_load_done(core);
    size_t before = in_use();
    for (int i = 1; i <= nodes; i++) {
        add_node(i);
    }
    size_t with_nodes = in_use();
    for (int i = 0; i < nodes / 8 + 16; i++) { /* fills it */
        submit(8 < nodes ? 8 : 1, GPUS, 3600 + random_below(500000), (int)random_below(200));
        now_ms += 100;
    }
    now_ms += 60000;
    step(&(struct input){.kind = INPUT_TICK});
    size_t full = in_use();
    size_t waiting = core->queue_count;
    int64_t began = clock_boot_ns();
    submit_some(jobs - (int)waiting, 512);
    double submit_us = (double)(clock_boot_ns() - began) / 1e3 / jobs;
    size_t with_jobs = in_use();
    now_ms += 60000;
    step(&(struct input){.kind = INPUT_TICK});

    char text[128];
    snprintf(text, sizeof text, "a pass over %d nodes, %zu jobs waiting", nodes, core->queue_count);
    measure(text, true, UINT32_MAX);
    end_one(8);
    measure("  with 8 nodes free", true, UINT32_MAX);
    measure("  over the front of the queue only", false, 256);
    submit(512 < nodes / 2 ? 512 : (uint32_t)nodes / 2, GPUS, 86400, 1);
    core_job(core, core->next_job - 1)->row.priority = 1000;
    for (int i = 0; i < 40; i++) {
        end_one(8);
    }
    measure("  with 320 nodes held for a large gang", true, UINT32_MAX);
    began = clock_boot_ns();
    for (int i = 0; i < 100000; i++) {
        struct input in = {.kind = INPUT_HEARTBEAT, .session = 1 + (session_id)(i % nodes)};
        step(&in);
    }
    figure("a heartbeat in the core, with all this waiting",
           (double)(clock_boot_ns() - began) / 1e3 / 100000, "us", 0);
    figure("a submit in the core, parsed and queued", submit_us, "us", 0);
    figure("memory of a node with 8 accelerators", (double)(with_nodes - before) / nodes, "bytes",
           65536);
    figure("memory of a waiting job", (double)(with_jobs - full) / (double)(jobs - (int)waiting),
           "bytes", 2048);
    core_destroy(core);
    return 0;
}
