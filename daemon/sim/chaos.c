/* One seed of the cluster in a box: options are drawn from the seed; for a while everything fails
 * that may fail; then the faults stop, what is held is released, and every job must end. Checkers
 * look all the time. */
#include "daemon/sim/chaos.h"

#include "daemon/sim/sim.h"
#include "daemon/sim/vfs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/file.h"
#include "lib/mem.h"

#define LIVENESS_MS (12 * 3600 * 1000)
#define FAULTS      13

static int64_t maybe(struct sim *sim, double probability, int64_t low_ms, int64_t high_ms)
{
    int64_t value = sim_between(sim, low_ms, high_ms);
    return sim_chance(sim, probability) ? value : 0;
}

static void draw_options(struct sim *sim)
{
    struct sim_options *o = &sim->options;
    o->nodes = (int)sim_between(sim, 1, SIM_NODES_MAX);
    o->gpus = (int)sim_between(sim, 1, SIM_GPUS_MAX);
    o->jobs = (int)sim_between(sim, 5, 48);
    o->fault_phase_ms = sim_between(sim, 900000, 3600000);
    o->latency_ms = sim_between(sim, 0, 200);
    o->copy = sim_chance(sim, 0.5) ? 0.1 : 0;
    o->overtake = sim_chance(sim, 0.3) ? 0.1 : 0;
    o->worker_crash = sim_chance(sim, 0.4) ? 0.02 : 0;
    o->break_ms = maybe(sim, 0.7, 20000, 200000);
    o->partition_ms = maybe(sim, 0.6, 60000, 600000);
    o->worker_restart_ms = maybe(sim, 0.7, 30000, 300000);
    o->reboot_ms = maybe(sim, 0.5, 100000, 900000);
    o->rank_crash_ms = maybe(sim, 0.8, 10000, 100000);
    o->coord_crash_ms = maybe(sim, 0.7, 60000, 600000);
    o->coord_pause_ms = maybe(sim, 0.3, 100000, 600000);
    o->crash_in_commit = sim_chance(sim, 0.5) ? 0.002 : 0;
    o->operator_ms = maybe(sim, 0.8, 10000, 120000);
    o->oneway_ms = maybe(sim, 0.5, 60000, 600000);
    o->gpu_fault_ms = maybe(sim, 0.5, 100000, 900000);
    o->node_clock_ms = maybe(sim, 0.3, 100000, 900000);
    o->features = sim_chance(sim, 0.6);
    o->sqlite = sim_chance(sim, 0.3);
    o->disk_full_ms = maybe(sim, 0.4, 200000, 900000);
    o->disk_sync_ms = maybe(sim, 0.4, 200000, 900000);
    o->disk_slow_ms = maybe(sim, 0.4, 100000, 900000);
}

/* One way only, for a while: what is sent is sent again until it gets through, or the connection is
 * given up. */
static void mute(struct sim *sim, struct worker *worker)
{
    int64_t until_ms = sim->now_ms + sim_between(sim, 1000, 60000);
    bool up = sim_chance(sim, 0.5);
    sim_trace(sim, "%s is not %s until %.3f", worker->name, up ? "heard" : "reached",
              (double)until_ms / 1000);
    sim_count(sim, COUNT_MUTE);
    *(up ? &worker->mute_up_ms : &worker->mute_down_ms) = until_ms;
}

static void disk_well(struct sim *sim, uint64_t generation, uint64_t b, void *payload)
{
    (void)b;
    (void)payload;
    if (generation == 0 || sim->disk_generation == generation) {
        sim_trace(sim, "the disk is well again");
        sim->disk_bad = false;
        sim->disk_delay_ms = 0;
        vfs_set_full(false);
        vfs_set_sync_fails(0);
    }
}

static void disk_fault(struct sim *sim, uint64_t kind)
{
    sim_count(sim, kind == 9 ? COUNT_DISK_FULL : kind == 10 ? COUNT_DISK_SYNC : COUNT_DISK_SLOW);
    sim_trace(sim, "the disk %s", kind == 9 ? "is full" : kind == 10 ? "fails to sync" : "is slow");
    if (kind == 9) {
        vfs_set_full(true);
    } else if (kind == 10) {
        vfs_set_sync_fails(sim_chance(sim, 0.5) ? 0.1 : 1);
    } else {
        sim->disk_delay_ms = sim_between(sim, 10, 3000);
    }
    sim->disk_bad |= kind != 11;
    sim_after(sim, sim_between(sim, 1000, 60000), disk_well, ++sim->disk_generation, 0, NULL);
}

static void strike(struct sim *sim, uint64_t kind)
{
    const struct sim_options *o = &sim->options;
    struct worker *worker = &sim->workers[sim_roll(sim, (uint64_t)o->nodes)];
    switch (kind) {
    case 0:
        net_break(sim, worker, sim_chance(sim, 0.5) ? -1 : sim_between(sim, 0, 5000));
        break;
    case 1:
        sim_count(sim, COUNT_PARTITIONS);
        worker->cut_until_ms = sim->now_ms + sim_between(sim, 5000, 180000);
        sim_trace(sim, "%s is cut off until %.3f", worker->name,
                  (double)worker->cut_until_ms / 1000);
        net_break(sim, worker, sim_chance(sim, 0.5) ? -1 : sim_between(sim, 0, 20000));
        break;
    case 2:
        worker_restart(sim, worker);
        break;
    case 3:
        worker_reboot(sim, worker);
        break;
    case 4:
        gang_crash_one(sim);
        break;
    case 5:
        if (sim->coord_up) {
            sim_count(sim, COUNT_CRASH_ANY);
        }
        coord_crash(sim);
        break;
    case 6:
        coord_freeze(sim, sim_between(sim, 1000, 120000));
        break;
    case 7:
        mute(sim, worker);
        break;
    case 8:
        worker_break_gpu(sim, worker);
        break;
    case 12:
        worker->clock_ms = sim_between(sim, -3600000, 3600000);
        sim_trace(sim, "the clock of %s is set off by %d ms", worker->name, (int)worker->clock_ms);
        sim_count(sim, COUNT_NODE_CLOCKS);
        break;
    default:
        disk_fault(sim, kind);
    }
}

static void fault(struct sim *sim, uint64_t kind, uint64_t b, void *payload);

static void next_fault(struct sim *sim, uint64_t kind)
{
    const struct sim_options *o = &sim->options;
    const int64_t means_ms[FAULTS] = {o->break_ms,
                                      o->partition_ms,
                                      o->worker_restart_ms,
                                      o->reboot_ms,
                                      o->rank_crash_ms,
                                      o->coord_crash_ms,
                                      o->coord_pause_ms,
                                      o->oneway_ms,
                                      o->gpu_fault_ms,
                                      o->sqlite ? o->disk_full_ms : 0,
                                      o->sqlite ? o->disk_sync_ms : 0,
                                      o->disk_slow_ms,
                                      o->node_clock_ms};
    sim_after(sim, sim_wait(sim, means_ms[kind]), fault, kind, 0, NULL);
}

static void fault(struct sim *sim, uint64_t kind, uint64_t b, void *payload)
{
    (void)b;
    (void)payload;
    if (!sim->calm) {
        strike(sim, kind);
        next_fault(sim, kind);
    }
}

static void inspect(struct sim *sim, uint64_t a, uint64_t b, void *payload)
{
    (void)a;
    (void)b;
    (void)payload;
    if (sim->coord_up) {
        check_database(sim, false);
    }
    sim_after(sim, 120000, inspect, 0, 0, NULL);
}

static void run_until(struct sim *sim, int64_t end_ms, bool all_ended)
{
    struct heap_event event;
    while (heap_next_ms(&sim->heap) <= end_ms && heap_take(&sim->heap, &event)) {
        sim->now_ms = event.at_ms;
        ((sim_fn)event.fn)(sim, event.a, event.b, event.payload);
        if (all_ended && check_all_ended(sim)) {
            return;
        }
    }
    sim->now_ms = end_ms;
}

static void begin(struct sim *sim)
{
    const char *shm = file_mkdirs("/dev/shm", 0777, NULL) == 0 ? "/dev/shm" : "/tmp";
    snprintf(sim->dir, sizeof sim->dir, "%s/ds-sim-XXXXXX", shm);
    if (mkdtemp(sim->dir) == NULL) {
        snprintf(sim->dir, sizeof sim->dir, "/tmp/ds-sim-XXXXXX");
        if (mkdtemp(sim->dir) == NULL) {
            sim_fail(sim, "no folder for the database in %s or /tmp", shm);
        }
    }
    disk_begin(sim);
    coord_start(sim);
    for (int i = 0; i < sim->options.nodes; i++) {
        struct worker *worker = &sim->workers[i];
        worker->index = i;
        worker->up = true;
        snprintf(worker->name, sizeof worker->name, "n%d", i + 1);
        net_connect(sim, worker);
        sim_after(sim, sim_between(sim, 0, 5000), worker_heartbeat, (uint64_t)i, 0, NULL);
    }
    users_start(sim);
    for (uint64_t kind = 0; kind < FAULTS; kind++) {
        next_fault(sim, kind);
    }
    sim_after(sim, 120000, inspect, 0, 0, NULL);
}

static void finish(struct sim *sim)
{
    coord_stop(sim);
    disk_end(sim);
    heap_fini(&sim->heap);
    for (size_t i = 0; i < sim->gang_count; i++) {
        free(sim->gangs[i]);
    }
    for (int i = 0; i < sim->options.nodes; i++) {
        net_fini(&sim->workers[i]);
        for (size_t j = 0; j < sim->workers[i].outbox_count; j++) {
            free(sim->workers[i].outbox[j].message);
        }
    }
    free(sim->disk);
    free(sim->origins);
    file_remove_tree(sim->dir, NULL);
}

uint64_t chaos_run(uint64_t seed, bool verbose, bool quiet, struct counts *counts)
{
    struct sim *sim = mem_alloc(sizeof *sim);
    sim->seed = sim->rng = seed;
    sim->verbose = verbose;
    draw_options(sim);
    begin(sim);
    run_until(sim, sim->options.fault_phase_ms, false);
    sim_trace(sim, "the faults stop");
    sim->calm = true;
    for (int i = 0; i < sim->options.nodes; i++) {
        sim->workers[i].cut_until_ms = 0;
        worker_repair(sim, &sim->workers[i]);
    }
    disk_well(sim, 0, 0, NULL);
    users_calm(sim);
    run_until(sim, sim->now_ms + LIVENESS_MS, true);
    run_until(sim, sim->now_ms + 180000, false); /* acknowledgements, leases, removals */
    for (int i = 0; i < 100 && sim->coord_up && pump_is_dirty(sim->pump); i++) {
        run_until(sim, sim->now_ms + 1, false);
    }
    if (!sim->coord_up || pump_is_dirty(sim->pump)) {
        sim_fail(sim, "the coordinator does not come to rest");
    }
    check_reload(sim);
    check_database(sim, true);
    sim_note(sim, core_digest(sim->core));
    const struct sim_options *o = &sim->options;
    uint64_t *n = sim->counts.n;
    n[COUNT_SIM_MS] = (uint64_t)sim->now_ms;
    n[COUNT_SQLITE] = o->sqlite;
    if (!quiet) {
        printf("seed %-6" PRIu64 " %016" PRIx64 " %d nodes x %d, %2d jobs, %s: %6" PRIu64
               " inputs, %5" PRIu64 " commits, %3" PRIu64 " starts, %2" PRIu64 " crashes, %2" PRIu64
               " reloads equal, %3" PRIu64 " stale shards refused, %.1f h\n",
               seed, sim->hash, o->nodes, o->gpus, o->jobs, o->sqlite ? "sqlite" : "memory",
               n[COUNT_INPUTS], n[COUNT_COMMITS], n[COUNT_STARTS],
               n[COUNT_CRASH_ANY] + n[COUNT_CRASH_BEFORE] + n[COUNT_CRASH_AFTER] +
                   n[COUNT_COMMITS_FAILED],
               n[COUNT_RELOADS], n[COUNT_STALE], (double)sim->now_ms / 3600000);
        fflush(stdout);
    }
    uint64_t hash = sim->hash;
    if (counts != NULL) {
        *counts = sim->counts;
    }
    finish(sim);
    free(sim);
    return hash;
}
