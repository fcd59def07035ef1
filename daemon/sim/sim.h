/* A whole cluster in one process, on a virtual clock, from one seed: the real core, pump and SQLite
 * store; simulated workers, ranks, connections and users that fail in every way the design promises
 * to survive; and checkers that know nothing of the core.
 *
 *   coord.c   the coordinator process: batches inputs, crashes before, within and after commits,
 * restarts from its database net.c     connections: delay, copies, breaks that one side does not
 * notice worker.c  the worker process and its machine: orders, reports, restarts, reboots gang.c
 * ranks: they train in step, save checkpoints, die users.c   people: submit and retry, cancel,
 * hold, drain, find corrupt checkpoints check.c   what must be true of the database and of what the
 * workers saw
 */
#ifndef DAEMON_SIM_SIM_H
#define DAEMON_SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <sqlite3.h>
#include <stdint.h>

#include "daemon/core/core.h"
#include "daemon/core/pump.h"
#include "daemon/sim/audit.h"
#include "daemon/sim/count.h"
#include "daemon/sim/heap.h"
#include "daemon/store.h"

#define SIM_EPOCH_MS 1700000000000 /* when the simulation begins, on people's clocks */

#define SIM_NODES_MAX 6
#define SIM_GPUS_MAX  4
#define SIM_RANKS_MAX (SIM_NODES_MAX * SIM_GPUS_MAX) /* of a gang */
#define SIM_JOBS_MAX  64
#define SIM_BURST_MS  1000
#define SIM_ARRAY_MAX 4

struct sim;
struct store_mem;
struct message;
struct up;

/* ---- sim.c: time and chance */
typedef void (*sim_fn)(struct sim *sim, uint64_t a, uint64_t b, void *payload);
/* fn at now + delay; it takes over payload, which came from malloc. */
void sim_after(struct sim *sim, int64_t delay_ms, sim_fn fn, uint64_t a, uint64_t b, void *payload);
uint64_t sim_roll(struct sim *sim, uint64_t bound);              /* 0..bound-1 */
int64_t sim_between(struct sim *sim, int64_t low, int64_t high); /* both included */
bool sim_chance(struct sim *sim, double probability);
/* An exponential waiting time; never when the mean is 0. */
int64_t sim_wait(struct sim *sim, int64_t mean_ms);
/* Something is wrong: says so with the seed and the time, and ends the program. */
void sim_fail(struct sim *sim, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), noreturn));
void sim_trace(struct sim *sim, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void sim_note(struct sim *sim, uint64_t value); /* into the hash of the run */
void sim_count(struct sim *sim, enum count what);
/* What every coordinator of the simulation is configured with. */
void sim_config(struct core_config *config);

/* What a seed draws; whole classes of faults are off in some runs. Mean times between, 0: never. */
struct sim_options {
    int nodes, gpus, jobs;
    int64_t fault_phase_ms;
    int64_t latency_ms;
    double copy;         /* a message to the coordinator arrives twice */
    double overtake;     /* ... before the one that was sent before it */
    double worker_crash; /* before or after a worker carries out an order */
    int64_t break_ms, partition_ms, worker_restart_ms, reboot_ms, rank_crash_ms;
    int64_t coord_crash_ms, coord_pause_ms;
    int64_t oneway_ms, gpu_fault_ms, node_clock_ms;
    bool sqlite; /* the real store on a disk that loses power; else tables in memory */
    int64_t disk_full_ms, disk_sync_ms, disk_slow_ms; /* only of SQLite */
    double crash_in_commit;                           /* each, before and after */
    bool features;       /* arrays, dependencies, preemption, maintenance, quotas ... */
    int64_t operator_ms; /* cancels, holds, drains, verifications */
};

/* ---- gang.c */
enum rank_state { RANK_NONE, RANK_RUNNING, RANK_EXITED };
struct gang {
    uint64_t index, job, epoch;
    uint32_t world_size;
    bool has_train, running, torn; /* torn: a rank is gone, the others will notice */
    uint64_t step, goal, save_every, resume_step;
    int64_t step_ms;
    char dir[512];
    struct {
        enum rank_state state;
        int worker;
    } ranks[SIM_RANKS_MAX];
};

/* ---- worker.c */
struct part { /* of an attempt, on one machine */
    uint64_t job, epoch;
    uint32_t phase; /* as in AttemptReport */
    bool failed;
    uint32_t rank_first, rank_count, world_size;
    uint32_t gpus[SIM_GPUS_MAX];
    size_t gpu_count;
    struct input_exit exits[SIM_GPUS_MAX];
    size_t exit_count;
};
struct outgoing { /* a rank's report, sent again until it was answered */
    struct message *message;
    reply_token token;
};
struct worker {
    int index;
    char name[16];
    int boots;
    bool up;
    session_id session; /* 0: not connected */
    bool registered;
    uint64_t connecting; /* generation, so that an old attempt to connect is void */
    uint64_t term_seen;
    int64_t deliver_up_ms, deliver_down_ms; /* a connection keeps the order */
    struct up *up_first, *up_last;          /* owned; net.c */
    int64_t heard_before_ms;          /* ... before the burst of messages that is just coming in */
    int64_t heard_ms;                 /* when the coordinator last got something from it */
    int64_t cut_until_ms;             /* partition */
    int64_t mute_up_ms, mute_down_ms; /* until then nothing arrives, one way */
    bool broken[SIM_GPUS_MAX];        /* accelerators */
    int64_t clock_ms;                 /* its clock minus the coordinator's */
    struct part parts[32];
    size_t part_count;
    struct outgoing outbox[256];
    size_t outbox_count;
};

/* ---- users.c */
enum pending { PENDING_NONE, PENDING_SENT, PENDING_ACKED };
struct request {
    enum pending state;
    uint32_t nodes, gpus;
    bool has_train;
    uint64_t steps, save_every;
    uint32_t keep;
    int64_t priority;
    uint32_t nodes_max, array, spares; /* elastic; members of an array, 0: one job */
    bool singleton, may_stop;          /* may_stop: preemptible */
    int after;                         /* a request whose job it shall wait for, -1: none */
    enum dependency_kind need;         /* how, */
    int64_t delay_ms, not_before_ms;   /* after the first submit, and by the clock; 0: at once */
    const char *user;
    uint64_t needs; /* and that job's id when it was first sent; 0: none */
    uint64_t job;   /* once acknowledged; the first of an array */
    bool done;
};
struct drain { /* an acknowledged one, until somebody asks to resume; coordinator time */
    int node;
    int64_t from_ms, to_ms;
};
struct node_op { /* at most one under way per node */
    bool pending, draining;
    int drain; /* the open interval, -1: none */
};

struct disk_ckpt { /* what is on the shared file system */
    char path[512];
    uint32_t world_size, shards;
    bool removed;
};

struct sim {
    uint64_t seed, rng, hash;
    struct sim_options options;
    bool verbose, calm; /* calm: no new faults */
    int64_t now_ms;
    struct heap heap;

    /* coord.c */
    char dir[64];
    bool coord_up, coord_doomed; /* doomed: it dies at the end of this flush */
    uint64_t coord_life;
    int64_t coord_since_ms; /* when it started */
    int64_t coord_clock_ms; /* its time minus sim time */
    int64_t coord_frozen_until_ms;
    struct store *store;   /* of SQLite */
    struct store_mem *mem; /* in memory */
    struct audit audit;
    bool disk_bad;            /* full, or its fsync fails: a commit may */
    int64_t disk_delay_ms;    /* of each commit */
    uint64_t disk_generation; /* of the newest disk fault */
    struct core *core;
    struct pump *pump;
    bool flush_set;
    uint64_t tick_set;   /* generation: only the newest alarm counts */
    size_t release_left; /* of a doomed one */
    uint64_t last_event;

    struct worker workers[SIM_NODES_MAX];
    session_id next_session;
    reply_token next_token;
    struct { /* who waits for an answer */
        enum {
            ORIGIN_NONE,
            ORIGIN_WORKER,
            ORIGIN_SUBMIT,
            ORIGIN_DRAIN,
            ORIGIN_RESUME,
            ORIGIN_MAINT,
            ORIGIN_OTHER
        } kind;
        uint64_t who;
        session_id session;
    } * origins;
    size_t origin_capacity;

    struct gang *gangs[4096];
    size_t gang_count;
    struct request requests[SIM_JOBS_MAX];
    struct drain drains[256];
    size_t drain_count;
    struct node_op node_ops[SIM_NODES_MAX];
    uint64_t windows[64]; /* reservations that somebody made */
    size_t window_count;
    bool held[SIM_JOBS_MAX + 1]; /* somebody asked for it; by job id */
    struct disk_ckpt *disk;
    size_t disk_count, disk_capacity;

    struct counts counts;
};

void sim_origin(struct sim *sim, reply_token token, int kind, uint64_t who, session_id session);

/* ---- coord.c */
void coord_start(struct sim *sim);
void coord_stop(struct sim *sim);
void coord_crash(struct sim *sim);
/* An input arrives, if there is a coordinator to take it. */
bool coord_input(struct sim *sim, struct input *in);
int64_t coord_now_ms(const struct sim *sim);
void coord_freeze(struct sim *sim, int64_t ms);

/* ---- coord_store.c */
void disk_begin(struct sim *sim);
void disk_end(struct sim *sim);
int disk_open(struct sim *sim, struct core *core, int64_t wall_ms, struct err *err);
void disk_close(struct sim *sim);
void disk_crash(struct sim *sim);
int disk_commit(struct sim *sim, struct core *core, int64_t now_ms, struct err *err);
int disk_reload(struct sim *sim, struct core *core, struct err *err);
sqlite3 *disk_database(struct sim *sim, struct err *err);
/* Writes what was committed to a real file, to look at. */
bool disk_keep(struct sim *sim, const char *path);

/* ---- net.c: a message to the coordinator, owned by whoever holds it */
struct message {
    enum input_kind kind;
    uint64_t job, epoch, step, ckpt, term_seen;
    uint32_t phase, world_size, rank;
    bool failed, ok;
    struct input_exit exits[SIM_GPUS_MAX];
    size_t exit_count;
    uint64_t step_first;
    struct part parts[32]; /* of a registration */
    size_t part_count;
    int boots;
    bool broken[SIM_GPUS_MAX];
};
struct order { /* to a worker */
    enum effect_kind kind;
    reply_token token;
    int code;
    uint64_t job, epoch, ckpt, resume_ckpt, resume_step;
    uint32_t rank_first, world_size, gpus[SIM_GPUS_MAX];
    size_t gpu_count;
    int64_t grace_ms;
    char path[512], resume_path[512];
    uint64_t request, term;
};
void net_connect(struct sim *sim, struct worker *worker);
/* notice_ms: how long the coordinator takes to see it; negative: it does not. */
void net_break(struct sim *sim, struct worker *worker, int64_t notice_ms);
void net_send(struct sim *sim, struct worker *worker, const struct message *message,
              reply_token token);
void net_order(struct sim *sim, session_id session, const struct order *order);
struct worker *net_worker_of(struct sim *sim, session_id session);
void net_fini(struct worker *worker);

/* ---- worker.c */
void worker_connected(struct sim *sim, struct worker *worker);
void worker_order(struct sim *sim, struct worker *worker, const struct order *order);
void worker_restart(struct sim *sim, struct worker *worker);
void worker_reboot(struct sim *sim, struct worker *worker);
/* An accelerator breaks under whatever uses it; some time later it is repaired. */
void worker_break_gpu(struct sim *sim, struct worker *worker);
void worker_repair(struct sim *sim, struct worker *worker);
void worker_heartbeat(struct sim *sim, uint64_t index, uint64_t b, void *payload);
/* From ranks. */
void worker_rank_exited(struct sim *sim, struct worker *worker, uint64_t job, uint64_t epoch,
                        struct input_exit x);
void worker_report_later(struct sim *sim, struct worker *worker, const struct message *message);

/* ---- gang.c */
struct gang *gang_find(struct sim *sim, uint64_t job, uint64_t epoch);
void gang_join(struct sim *sim, const struct order *start, int worker);
void gang_rank_started(struct sim *sim, uint64_t job, uint64_t epoch, uint32_t rank);
void gang_rank_exit(struct sim *sim, struct gang *gang, uint32_t rank, int32_t code,
                    int32_t signal);
/* The machine is gone and its ranks with it. */
void gang_rank_vanished(struct sim *sim, struct gang *gang, uint32_t rank);
void gang_crash_one(struct sim *sim);
/* The coordinator said that this epoch is over: what is left of it on that machine exits. */
void gang_fenced(struct sim *sim, uint64_t job, uint64_t epoch, int worker);
void gang_rank_kill(struct sim *sim, uint64_t job, uint64_t epoch, uint32_t rank, int64_t grace_ms);
void disk_remove(struct sim *sim, const char *path);

/* ---- users.c */
void users_start(struct sim *sim);
void users_replied(struct sim *sim, int kind, uint64_t who, int code, uint64_t id);
void users_calm(struct sim *sim);
void users_coord_crashed(struct sim *sim);
void users_coord_started(struct sim *sim);

/* ---- check.c */
void check_resume(struct sim *sim, const struct order *start);
void check_reload(struct sim *sim);
/* No node is given up for silence before its lease is over. */
void check_leases(struct sim *sim, const struct core *core);
/* The whole database; final: every job must have ended. */
void check_database(struct sim *sim, bool final);
bool check_all_ended(struct sim *sim);
/* The query must give no row; its first column is a sentence. */
void check_none(struct sim *sim, sqlite3 *db, const char *sql);
/* What a query counts. */
uint64_t check_number(struct sim *sim, sqlite3 *db, const char *sql);

/* ---- check_sched.c */
void check_schedule(struct sim *sim, sqlite3 *db);

#endif
