#include "daemon/sim/replay.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/sim/yard.h"
#include "lib/mem.h"

#define GPUS_MAX     64
#define NODES_MAX    65536
#define BOUND_MS     10000.0
#define LOAD_AIMED   0.8
#define TEN_YEARS_MS (10 * 365 * 86400000LL)

/* ---- sizes */
static uint64_t ceil_div(uint64_t a, uint64_t b)
{
    return (a + b - 1) / b;
}

/* Whole nodes, or a part of one. */
static void size_of(const struct replay_setup *setup, const struct trace_job *job, uint32_t *nodes,
                    uint32_t *gpus)
{
    uint64_t wanted = ceil_div(job->procs, setup->procs_per_gpu);
    uint64_t whole = ceil_div(wanted, setup->gpus);
    *nodes = whole < UINT32_MAX ? (uint32_t)whole : UINT32_MAX;
    *gpus = wanted < setup->gpus ? (uint32_t)wanted : setup->gpus;
}

/* As many nodes as would be busy for four fifths of the time, and room for the largest job. */
static uint64_t fitting_nodes(const struct replay_setup *setup, const struct trace *trace)
{
    double work = 0;
    uint64_t largest = 1;
    for (size_t i = 0; i < trace->count; i++) {
        uint32_t nodes, gpus;
        size_of(setup, &trace->jobs[i], &nodes, &gpus);
        work += (double)nodes * gpus * (double)trace->jobs[i].run_ms;
        largest = nodes > largest ? nodes : largest;
    }
    double span = (double)trace->jobs[trace->count - 1].submit_ms + 1;
    double wanted = work / span / LOAD_AIMED / setup->gpus;
    uint64_t nodes = wanted < NODES_MAX ? (uint64_t)wanted + 1 : NODES_MAX;
    return nodes > largest ? nodes : largest;
}

/* The accelerators of a node of which the header says that it has so many processors: all of them,
 * or as few to one as leave at most GPUS_MAX. */
static void split_node(struct replay_setup *setup, uint64_t procs)
{
    if (setup->procs_per_gpu == 0) {
        setup->procs_per_gpu = 1;
        while (procs / setup->procs_per_gpu > GPUS_MAX || procs % setup->procs_per_gpu != 0) {
            setup->procs_per_gpu++;
        }
    }
    uint64_t gpus = procs / setup->procs_per_gpu;
    setup->gpus = gpus < 1 ? 1 : gpus > GPUS_MAX ? GPUS_MAX : (uint32_t)gpus;
}

int replay_fit(struct replay_setup *setup, const struct trace *trace, char *text, size_t text_bytes,
               struct err *err)
{
    text[0] = 0;
    uint64_t header_nodes = trace->max_nodes, header_procs = trace->max_procs;
    if (header_procs == 0 || header_procs < header_nodes) {
        header_procs = header_nodes;
    }
    if (header_nodes == 0 && header_procs <= NODES_MAX) {
        header_nodes = header_procs; /* whole machines may be all that it knows */
    }
    if (setup->gpus == 0 && header_nodes > 0) {
        split_node(setup, header_procs / header_nodes);
    }
    setup->gpus = setup->gpus > 0 ? setup->gpus : 8;
    setup->procs_per_gpu = setup->procs_per_gpu > 0 ? setup->procs_per_gpu : 1;
    if (setup->nodes == 0) {
        bool from_header = header_procs > 0;
        uint64_t nodes = from_header ? header_procs / setup->procs_per_gpu / setup->gpus
                                     : fitting_nodes(setup, trace);
        nodes = nodes > 0 ? nodes : 1;
        if (nodes > NODES_MAX) {
            return err_set(err, ERR_TOO_LARGE,
                           "the trace needs %" PRIu64
                           " nodes of %u, at most %d are simulated (give "
                           "--gpus-per-node or --procs-per-gpu)",
                           nodes, setup->gpus, NODES_MAX);
        }
        setup->nodes = (uint32_t)nodes;
        snprintf(text, text_bytes, "%u nodes x %u: %s (--nodes, --gpus-per-node change that)",
                 setup->nodes, setup->gpus,
                 from_header ? "what the trace's header says"
                             : "the trace does not say; so it would be busy 80 % of the time");
    }
    return 0;
}

/* What everybody is told: never less than the job runs, so that nobody is cut short. */
static int64_t estimate_ms(const struct replay_setup *setup, const struct trace_job *job)
{
    int64_t told = setup->perfect ? 0 : job->limit_ms;
    int64_t estimate = told > job->run_ms ? told : job->run_ms;
    return estimate > 1000 ? estimate : 1000;
}

/* ---- figures */
static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double quantile(const double *sorted, size_t count, double q)
{
    return count > 0 ? sorted[(size_t)(q * (double)(count - 1) + 0.5)] : 0;
}

static void summarize(struct summary *s, const struct replay_setup *setup)
{
    double *waits = mem_alloc_array(s->count + 1, sizeof *waits);
    double *slow = mem_alloc_array(s->count + 1, sizeof *slow);
    double work = 0, gang_wait = 0, wait_sum = 0, slow_sum = 0;
    int64_t first_ms = INT64_MAX, last_ms = 0;
    for (size_t i = 0; i < s->count; i++) {
        const struct outcome *o = &s->outcomes[i];
        if (o->start_ms < 0) {
            s->never++;
            continue;
        }
        double wait = (double)(o->start_ms - o->submit_ms), run = (double)(o->end_ms - o->start_ms);
        double slowdown = (wait + run) / (run > BOUND_MS ? run : BOUND_MS);
        waits[s->started] = wait;
        slow[s->started++] = slowdown > 1 ? slowdown : 1;
        wait_sum += wait;
        slow_sum += slowdown > 1 ? slowdown : 1;
        work += (double)o->nodes * o->gpus * run;
        first_ms = o->submit_ms < first_ms ? o->submit_ms : first_ms;
        last_ms = o->end_ms > last_ms ? o->end_ms : last_ms;
        if (o->nodes * 4 >= setup->nodes && o->nodes > 1) {
            s->gangs++;
            gang_wait += wait;
            s->gang_wait_max_ms = wait > s->gang_wait_max_ms ? wait : s->gang_wait_max_ms;
        }
    }
    qsort(waits, s->started, sizeof *waits, compare);
    qsort(slow, s->started, sizeof *slow, compare);
    if (s->started > 0) {
        s->wait_mean_ms = wait_sum / (double)s->started;
        s->slowdown_mean = slow_sum / (double)s->started;
        s->makespan_ms = last_ms - first_ms;
    }
    s->wait_median_ms = quantile(waits, s->started, 0.5);
    s->wait_p95_ms = quantile(waits, s->started, 0.95);
    s->wait_max_ms = quantile(waits, s->started, 1);
    s->slowdown_p95 = quantile(slow, s->started, 0.95);
    s->gang_wait_mean_ms = s->gangs > 0 ? gang_wait / (double)s->gangs : 0;
    double capacity = (double)setup->nodes * setup->gpus * (double)s->makespan_ms;
    s->utilisation = capacity > 0 ? work / capacity : 0;
    free(waits);
    free(slow);
}

/* ---- the core */
static struct fleet_job *make_jobs(const struct replay_setup *setup, const struct trace *trace)
{
    struct fleet_job *jobs = mem_alloc_array(trace->count, sizeof *jobs);
    for (size_t i = 0; i < trace->count; i++) {
        const struct trace_job *t = &trace->jobs[i];
        struct fleet_job *job = &jobs[i];
        job->user = mem_strdup(t->user);
        job->submit_ms = t->submit_ms;
        job->work_ms = t->run_ms;
        job->limit_ms = estimate_ms(setup, t) + 1000; /* it ends just before */
        size_of(setup, t, &job->nodes, &job->gpus);
    }
    return jobs;
}

int replay_core(const struct replay_setup *setup, const struct trace *trace,
                struct summary *summary, struct fleet_result *result, struct err *err)
{
    struct fleet_setup fleet = {.seed = setup->seed,
                                .nodes = setup->nodes,
                                .gpus = setup->gpus,
                                .model = "gpu",
                                .core = setup->core,
                                .verbose = setup->verbose};
    fleet.core.lease_ms = TEN_YEARS_MS; /* nothing fails here: no need to ask who is alive */
    struct fleet_job *jobs = make_jobs(setup, trace);
    int rc = fleet_run(&fleet, jobs, trace->count, result, err);
    *summary = (struct summary){.name = "ds", .count = trace->count};
    summary->outcomes = mem_alloc_array(trace->count, sizeof *summary->outcomes);
    for (size_t i = 0; i < trace->count; i++) {
        bool ended = jobs[i].started_ms >= 0 && jobs[i].ended_ms >= 0;
        summary->outcomes[i] = (struct outcome){.submit_ms = trace->jobs[i].submit_ms,
                                                .start_ms = ended ? jobs[i].started_ms : -1,
                                                .end_ms = ended ? jobs[i].ended_ms : -1,
                                                .nodes = jobs[i].nodes,
                                                .gpus = jobs[i].gpus};
        if (rc == 0 && ended && jobs[i].state != JOB_COMPLETED) {
            rc = err_set(err, ERR_CORRUPT, "job %s of the trace ended as %s", trace->jobs[i].id,
                         job_state_names[jobs[i].state]);
        }
    }
    summarize(summary, setup);
    fleet_jobs_free(jobs, trace->count);
    return rc;
}

/* ---- the yardsticks */
void replay_yard(const struct replay_setup *setup, const struct trace *trace, const char *name,
                 struct summary *summary)
{
    struct yard_job *jobs = mem_alloc_array(trace->count, sizeof *jobs);
    for (size_t i = 0; i < trace->count; i++) {
        const struct trace_job *t = &trace->jobs[i];
        jobs[i] = (struct yard_job){
            .submit_ms = t->submit_ms, .run_ms = t->run_ms, .estimate_ms = estimate_ms(setup, t)};
        size_of(setup, t, &jobs[i].nodes, &jobs[i].gpus);
    }
    yard_run(strcmp(name, "easy") == 0 ? YARD_EASY : YARD_FIFO, setup->nodes, setup->gpus, jobs,
             trace->count);
    *summary = (struct summary){.name = name, .count = trace->count};
    summary->outcomes = mem_alloc_array(trace->count, sizeof *summary->outcomes);
    for (size_t i = 0; i < trace->count; i++) {
        bool ran = jobs[i].start_ms >= 0;
        summary->outcomes[i] =
            (struct outcome){.submit_ms = jobs[i].submit_ms,
                             .start_ms = jobs[i].start_ms,
                             .end_ms = ran ? jobs[i].start_ms + jobs[i].run_ms : -1,
                             .nodes = jobs[i].nodes,
                             .gpus = jobs[i].gpus};
    }
    summarize(summary, setup);
    free(jobs);
}

void summary_fini(struct summary *summary)
{
    free(summary->outcomes);
    *summary = (struct summary){0};
}
