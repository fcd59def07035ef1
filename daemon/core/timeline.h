/* What is free on each node, from now on. A node has a list of slots: accelerators taken from one
 * time to another by what runs there, by planned starts, by maintenance windows. A gang needs a
 * time at which enough nodes have room for as long as it runs.
 *
 * Ends are estimates that jobs cannot exceed (time limit and grace); a job without a limit is
 * assumed to run for a time that grows with its age, and when it is to start itself it is taken to
 * last for ever, so that it never stands in the way of a planned start. */
#ifndef DAEMON_CORE_TIMELINE_H
#define DAEMON_CORE_TIMELINE_H

#include "daemon/core/state.h"

#define TIME_NEVER INT64_MAX
#define SLOT_NONE  UINT32_MAX

struct slot {
    int64_t from_ms, to_ms;
    uint32_t gpus, hosts; /* accelerators; ranks without one */
    uint32_t next;
    const struct reservation *reservation; /* whom it admits; NULL: nobody */
    uint64_t job;                          /* whose it is, 0: none */
};
struct tl_node {
    struct node *node;
    uint32_t capacity;    /* accelerators that can be given */
    uint32_t free, hosts; /* now: accelerators, and ranks without one that still fit */
    uint32_t first;       /* slot */
    uint32_t avail_at;    /* place in avail; SLOT_NONE: it is not there */
    bool is_kept;         /* a spare of the cluster */
    uint64_t spare_job;   /* a spare of this job */
};
struct timeline {
    const struct core *core;
    struct tl_node *nodes; /* owned; those that are usable now or at a known time */
    uint32_t node_count;
    uint32_t *of_node;  /* owned; by node id - 1 -> index, SLOT_NONE */
    struct slot *slots; /* owned */
    size_t slot_count, slot_capacity;
    uint32_t *avail; /* owned; indices of nodes with something free now, in no order */
    uint32_t avail_count;
    uint32_t with_free[NODE_GPUS_MAX + 1]; /* nodes with so many accelerators free now */
    int64_t settle_ms; /* when nodes that are kept for a gang are given out all the same */
};
/* What a gang asks for. */
struct demand {
    const struct job *job;
    uint32_t nodes;    /* at least */
    uint32_t gpus;     /* per node */
    int64_t length_ms; /* TIME_NEVER: no end is known */
    enum placement placement;
    bool takes_spares; /* of the cluster */
};

void timeline_init(struct timeline *tl, const struct core *core);
void timeline_fini(struct timeline *tl);
struct demand demand_of(const struct core *core, const struct job *job);

/* Whether node i has room from at_ms on for as long as the demand lasts. */
bool timeline_fits(const struct timeline *tl, uint32_t i, const struct demand *d, int64_t at_ms);
/* Indices of nodes that have room from at_ms on, into list (tl->node_count items); how many. */
uint32_t timeline_candidates(const struct timeline *tl, const struct demand *d, int64_t at_ms,
                             uint32_t *list);
int64_t timeline_slack(const struct timeline *tl, uint32_t i, const struct demand *d,
                       int64_t at_ms);
/* Nodes with at least so many accelerators free now, whoever may have them. */
uint32_t timeline_free_nodes(const struct timeline *tl, uint32_t gpus);
/* The first time, not after until_ms, at which enough nodes have room in one place; TIME_NEVER. */
int64_t timeline_earliest(const struct timeline *tl, const struct demand *d, int64_t until_ms);
/* Takes node i for the demand from at_ms on. */
void timeline_take(struct timeline *tl, uint32_t i, const struct demand *d, int64_t at_ms);
/* What the job has on node i ends at_ms. */
void timeline_cut(struct timeline *tl, uint32_t i, uint64_t job, int64_t at_ms);

#endif
