/* Shared by the fleet's files only.
 *
 *   fleet.c         the clock, the coordinator, what it orders, submits
 *   fleet_node.c    nodes: connections, registrations, parts of attempts, reports
 *   fleet_gang.c    gangs: start, progress, checkpoints, end
 *   fleet_fault.c   what breaks, and how it is noticed */
#ifndef DAEMON_SIM_FLEET_STATE_H
#define DAEMON_SIM_FLEET_STATE_H

#include "daemon/core/pump.h"
#include "daemon/sim/fleet.h"
#include "daemon/sim/heap.h"

#define COLLECTIVE_ABORT 85 /* exit status of a rank whose peer is gone */

enum part_state { PART_ORDERED, PART_STARTED, PART_ENDED };
struct fpart { /* of a gang, on one node */
    uint32_t node;
    uint32_t rank_first, rank_count, gpu_count;
    enum part_state state;
    bool stopping, gone;  /* gone: its machine died with it */
    int32_t code, signal; /* of each of its ranks, once ENDED */
    int64_t ended_ms;
};
enum gang_state { GANG_STARTING, GANG_WORKING, GANG_HALTED, GANG_DONE };
struct fgang {
    uint64_t index; /* in fleet->gangs */
    size_t job;     /* index of the fleet_job */
    uint64_t id, epoch;
    struct fpart *parts; /* owned */
    uint32_t part_count, part_capacity, node_count, world_size;
    uint32_t started, ended;
    enum gang_state state;
    uint64_t turn;             /* of its timers: an older one is void */
    int64_t base_ms;           /* useful time at the beginning of the stretch */
    int64_t stretch_ms;        /* when that began; training goes on from there */
    int64_t stretch_useful_ms; /* how much useful time it may bring */
    int64_t halted_ms;         /* useful time at the end */
    int64_t stall_ms;          /* not yet reported */
    uint64_t saves, told_step; /* checkpoints made; the newest step that was reported */
    size_t span;               /* index + 1 in result->spans */
    uint64_t resume_step;
    bool saving; /* it was asked to stop, and saves first */
};
struct fnode_part {
    uint64_t gang;
    uint32_t part;
};
struct fnode {
    char name[16];
    session_id session; /* 0: not connected */
    bool up;
    int boots;
    int broken_gpu; /* -1: none */
    int64_t seen_ms;
    struct fnode_part *parts; /* owned */
    size_t part_count, part_capacity;
};

struct fleet {
    struct fleet_setup *setup;
    struct fleet_job *jobs;
    size_t job_count, jobs_left;
    size_t jobs_waiting, gangs_alive; /* accepted and not ended; of attempts, at work */
    int64_t moved_ms;                 /* last time something ran or nothing waited */
    struct fleet_result *result;
    uint64_t rng;
    int64_t now_ms; /* since the beginning */
    struct heap heap;
    struct store_mem *store; /* owned; NULL: the coordinator never dies */
    struct core *core;       /* NULL while it is away */
    struct pump *pump;
    struct fnode *nodes; /* owned */
    uint64_t sessions;
    struct fgang **gangs; /* owned; NULL once done */
    size_t gang_count, gang_capacity;
    uint64_t *gang_of_job; /* owned; index + 1 of the newest; 0: none */
    int64_t next_fault_ms;
    struct err err; /* the first thing found wrong */
};

/* fn at now + delay. */
typedef void (*fleet_fn)(struct fleet *f, uint64_t a, uint64_t b, void *payload);
void fleet_after(struct fleet *f, int64_t delay_ms, fleet_fn fn, uint64_t a, uint64_t b);
void fleet_input(struct fleet *f, struct input *in);
void fleet_note(struct fleet *f, uint64_t a, uint64_t b);
void fleet_trace(const struct fleet *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The coordinator dies with all that it had not committed, and is back after a while. */
void fleet_crash(struct fleet *f, int64_t away_ms);

/* ---- fleet_node.c */
void node_connect(struct fleet *f, struct fnode *node);
/* Says which attempts it knows and how its accelerators are. */
void node_announce(struct fleet *f, struct fnode *node);
struct fnode *fleet_node_of(struct fleet *f, session_id session);
void part_report(struct fleet *f, struct fgang *gang, struct fpart *part);
/* Every rank of the part ends so; the gang is told. Reported when the node can. */
void part_end(struct fleet *f, struct fgang *gang, uint32_t part, int32_t code, int32_t signal);
void part_add(struct fleet *f, struct fnode *node, struct fgang *gang, uint32_t part);
void node_forget(struct fleet *f, struct fnode *node, uint64_t id, uint64_t epoch);
/* The part of (job, epoch) on the node; NULL when it knows none. */
struct fpart *node_part(struct fleet *f, struct fnode *node, uint64_t id, uint64_t epoch,
                        struct fgang **gang);
void node_order_start(struct fleet *f, struct fnode *node, const struct effect_start *start);
void node_order_stop(struct fleet *f, struct fnode *node, uint64_t id, uint64_t epoch,
                     int64_t grace_ms);
void node_heartbeats(struct fleet *f);

/* ---- fleet_gang.c */
struct fgang *gang_of(struct fleet *f, uint64_t index); /* NULL when it is done */
struct fgang *gang_create(struct fleet *f, size_t job, const struct effect_start *start);
void gang_begin(struct fleet *f, struct fgang *gang);
/* Nothing more is done from now on: a rank or node is gone, or is told to stop. */
void gang_halt(struct fleet *f, struct fgang *gang);
/* Saves where it was halted; the shards are durable when its parts end. */
void gang_save_now(struct fleet *f, struct fgang *gang);
/* Reports how far it came; from the node of rank 0, when that still can. */
void gang_tell(struct fleet *f, struct fgang *gang, int64_t useful_ms);
/* All parts are over: forgets it. */
void gang_settle(struct fleet *f, struct fgang *gang);

/* ---- fleet_fault.c */
void faults_begin(struct fleet *f);

#endif
