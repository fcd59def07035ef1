/* What the core holds in memory: a cache of the live part of the tables, plus what dies with the
 * process (connections, timers). Internal to daemon/core. The structs embed their table rows;
 * whoever changes a row calls core_mark. */
#ifndef DAEMON_CORE_STATE_H
#define DAEMON_CORE_STATE_H

#include "daemon/core/core.h"
#include "daemon/core/effect_list.h"
#include "daemon/core/keys.h"
#include "daemon/core/map.h"
#include "daemon/core/rows.h"
#include "daemon/core/timers.h"

/* Ranks without an accelerator that one node takes at a time. */
#define NODE_HOSTED_MAX 64
#define NODE_GPUS_MAX   64

struct node;
struct job;
struct attempt;

struct price {
    struct price_row row;
};
struct queue {
    struct queue_row row;
    uint32_t jobs, nodes; /* of running ones */
    uint32_t waiting;     /* jobs that are neither running nor stopping */
    uint32_t planned_jobs,
        planned_nodes; /* only while a pass is made, here and below: started by it */
};
struct account {
    struct account_row row;
    uint32_t nodes; /* of running jobs */
    uint32_t planned_nodes;
    double used;     /* only while a pass is made: of all its members */
    uint32_t active; /* members that have used something */
};
/* A user's part of an account: what it used, and what it is using. */
struct member {
    struct fair_usage_row row;
    struct account *account; /* borrowed */
    int64_t rate_milli;      /* accelerators in use x the weight of their queue */
    double used, factor;     /* only while a pass is made: use, and the score's factor of it */
};
/* A user's part of a queue. */
struct lane {
    struct queue *queue; /* borrowed */
    char *user;          /* owned */
    uint32_t jobs, nodes;
    uint32_t planned_jobs, planned_nodes;
};
struct quota {
    struct quota_row row;
};
struct reservation {
    struct reservation_row row;
    struct node **members; /* owned; those of its nodes that have registered, by id */
    size_t member_count, member_capacity;
};
/* An array of jobs, while one of them is live. */
struct array {
    uint64_t id;
    uint32_t size;
    uint32_t planned;
    uint32_t live, running, unstarted; /* unstarted: live and without an attempt so far */
    uint32_t bad;                      /* ended, and not completed */
    struct job **dependents;           /* as of a job */
    size_t dependent_count, dependent_capacity;
};
/* How a job that has left memory ended. */
enum job_outcome { OUTCOME_NONE, OUTCOME_COMPLETED, OUTCOME_FAILED, OUTCOME_CANCELLED };
struct outcomes {
    uint32_t *items; /* owned; by job id: the outcome in two bits, above them the size of the array
                        that the job was first of */
    size_t capacity;
};
/* Why a waiting job was not started by the last pass that looked at it. Not stored. */
enum wait_code {
    WAIT_NONE, /* not looked at yet */
    WAIT_QUEUE_STOPPED,
    WAIT_QUEUE_LIMIT,
    WAIT_USER_LIMIT,
    WAIT_ACCOUNT_LIMIT,
    WAIT_QUOTA,
    WAIT_ARRAY,
    WAIT_RESOURCES, /* it has a reservation, or nothing to wait for */
    WAIT_PREEMPTION,
    WAIT_PRIORITY, /* others go first */
};
struct wait {
    enum wait_code code;
    uint64_t who;        /* quota, or the job that goes first */
    int64_t start_ms;    /* planned start; INT64_MAX: not planned */
    struct node **nodes; /* owned; planned, of a job with a reservation */
    uint32_t node_count;
    int64_t pass_ms; /* when that was */
};
struct gpu {
    struct gpu_row row;
    struct node *node;             /* borrowed */
    struct allocation *allocation; /* borrowed; the live one, or NULL */
};
/* An attempt that a worker said it has and that is not, or no longer, the coordinator's: to be
 * stopped. */
struct leftover {
    uint64_t job, epoch;
};
struct node {
    struct node_row row;
    struct gpu **gpus; /* borrowed from core->gpus, by idx */
    size_t gpu_count, gpu_capacity;
    struct attempt_node *first; /* live parts of attempts, oldest first */
    uint32_t hosted;            /* live ranks without an accelerator */
    uint32_t present, healthy,
        free; /* accelerators that are there; of these in order; and nobody's */
    uint32_t place[PLACEMENT_LEAF + 1]; /* numbers of its zone, rack and leaf; not stored */
    /* not stored */
    session_id session;         /* 0: not connected */
    int64_t lease_ms;           /* until when it is trusted without another sign of life */
    int64_t seen_ms;            /* last sign of life */
    bool watched;               /* a timer is set for the lease */
    struct leftover *leftovers; /* owned */
    size_t leftover_count, leftover_capacity;
    uint32_t maint; /* active maintenance windows over it */
};
struct allocation {
    struct allocation_row row;
    struct gpu *gpu; /* borrowed */
};
struct rank_exit {
    bool known;
    struct rank_exit_row row;
};
/* One node's part of an attempt. */
struct attempt_node {
    struct attempt_node_row row;
    struct attempt *attempt;          /* borrowed */
    struct node *node;                /* borrowed */
    struct attempt_node *prev, *next; /* in node's list while live: neither ENDED nor LOST */
    bool seen;                        /* only while a registration is gone through */
    bool stop_acked;                  /* not stored */
    uint32_t rank_first, rank_count;
    struct allocation *allocations; /* owned by the attempt; gpu_count items */
    uint32_t gpu_count;
};
struct attempt {
    struct attempt_row row;
    struct job *job;            /* borrowed */
    struct attempt_node *nodes; /* owned; by node_rank */
    uint32_t node_count;
    uint32_t world_size;
    int64_t end_ms;                 /* not stored: estimated by the last pass */
    int64_t ending_ms;              /* not stored: the first of its nodes was done; 0: none is */
    struct allocation *allocations; /* owned; by rank */
    uint32_t allocation_count;
    struct rank_exit *exits; /* owned; by rank */
};
struct ckpt_shard {
    struct ckpt_shard_row row;
    bool known;
};
struct ckpt {
    struct checkpoint_row row;
    struct ckpt_shard *shards; /* owned; world_size items by rank; NULL when CORRUPT or DELETED */
    int64_t known;             /* shards reported */
    struct ckpt *prev, *next;  /* all in memory, by id */
    int64_t retry_ms;          /* not stored: when to order its publication or removal again */
    int64_t retry_wait_ms;
};
struct job {
    struct job_row row;
    struct job *prev, *next; /* all in memory, by id */
    struct attempt *attempt; /* owned; the newest, or NULL */
    struct ckpt **ckpts; /* borrowed; those in memory, in the order of training: (epoch, step) */
    size_t ckpt_count, ckpt_capacity;
    bool queued;              /* in core->queue */
    size_t queue_at;          /* its place there */
    size_t running_at;        /* its place in core->running, while its attempt is live */
    struct queue *queue;      /* borrowed */
    struct member *member;    /* borrowed */
    struct lane *lane;        /* borrowed */
    struct array *array;      /* borrowed; or NULL */
    bool counted;             /* as running, in all of these */
    struct dependency *needs; /* owned; what is not met yet */
    size_t need_count;
    struct job **dependents; /* borrowed; live jobs that need this one; may hold some that do not
                                any more */
    size_t dependent_count, dependent_capacity;
    struct wait wait;
};

/* What sched_can_ever_fit found last. */
struct fit_cache {
    uint64_t version; /* of core->nodes_version */
    uint32_t all, most;
};
struct change_list {
    void **rows; /* borrowed; owned in an append-only table */
    size_t count, capacity;
};
/* A block that a row to be written lives in: freed after the commit. */
struct garbage {
    void (*destroy)(void *object);
    void *object;
};

struct core {
    struct core_config config;
    uint64_t term;
    int64_t now_ms;
    int64_t
        scheduled_ms; /* last scheduling pass that started something or found the queue blocked */

    struct price **prices; /* owned; by id, dense */
    size_t price_count, price_capacity;
    struct node **nodes; /* owned; by id, dense */
    size_t node_count, node_capacity;
    struct gpu **gpus; /* owned; by id, dense */
    size_t gpu_count, gpu_capacity;

    struct job *job_first, *job_last; /* owned */
    struct map jobs;
    uint64_t next_job;
    struct ckpt *ckpt_first, *ckpt_last; /* owned */
    struct map ckpts;
    uint64_t next_ckpt;
    struct job **queue; /* borrowed; PENDING and free to start, in no order */
    size_t queue_count, queue_capacity;
    struct job **running; /* borrowed; with a live attempt, in no order */
    size_t running_count, running_capacity;
    struct queue **queues; /* owned; by name */
    size_t queue_kinds, queues_capacity;
    struct account **accounts; /* owned; by name */
    size_t account_count, accounts_capacity;
    struct member **members; /* owned; by account, user */
    size_t member_count, members_capacity;
    struct lane **lanes; /* owned; by queue, user */
    size_t lane_count, lanes_capacity;
    struct quota **quotas; /* owned; by id, dense */
    size_t quota_count, quotas_capacity;
    struct reservation **reservations; /* owned; by id, dense */
    size_t reservation_count, reservations_capacity;
    struct map arrays; /* -> array, owned by it */
    struct outcomes outcomes;
    struct map places; /* hash of a node's name -> policy_place, owned */
    bool places_known;
    struct map place_numbers; /* hash of a level and name -> its number */
    uint32_t place_count;     /* numbers given out */
    struct map node_names;    /* hash of the name -> node; of two with one hash the first */
    bool sched_due;           /* something changed that may let a job start */
    /* of the scheduler, not stored */
    struct fit_cache fits[PLACEMENT_LEAF + 1][NODE_GPUS_MAX + 1];
    uint64_t nodes_version; /* grows when nodes or their accelerators come or go */
    bool carrying_out;      /* a plan: what leaves the queue was planned to */
    bool has_hosted;        /* there was a waiting job without accelerators */
    uint64_t *claims;       /* owned; jobs whose nodes may be kept for their restart */
    size_t claim_count, claims_capacity;
    uint64_t blocker; /* the first job that the last pass gave a reservation */
    uint64_t *order;  /* owned; ids as the last whole pass ranked them */
    size_t order_count, order_capacity;
    int64_t whole_pass_ms, pass_ms; /* earliest times of the next ones */
    int64_t alarm_ms;               /* a TIMER_SCHED is set for then; 0: none */
    struct keys keys;
    struct map sessions; /* -> node */
    struct timers timers;

    uint64_t event_seq;
    uint64_t ledger_seq;
    uint8_t ledger_head[ROW_HASH_BYTES];

    struct change_list changes[TABLE_COUNT];
    bool changed;
    struct garbage *garbage; /* owned */
    size_t garbage_count, garbage_capacity;
    struct effect_list effects;
};

/* Lists a changed row for the next commit, once. */
void core_mark(struct core *core, enum table_id table, void *row);
/* A zeroed row of an append-only table, listed and owned by the list. */
void *core_append(struct core *core, enum table_id table);
/* Destroys the object after the next commit, when its rows are written. */
void core_discard(struct core *core, void (*destroy)(void *object), void *object);

/* NULL when it is not in memory. */
struct job *core_job(const struct core *core, uint64_t id);
struct node *core_node(const struct core *core, uint64_t id);
struct node *core_node_by_name(const struct core *core, const char *name);
/* A node with a name is in core->nodes: makes it findable. */
void core_node_index(struct core *core, struct node *node);
struct node *core_node_of_session(const struct core *core, session_id session);
struct gpu *core_gpu(const struct core *core, uint64_t id);
struct ckpt *core_ckpt(const struct core *core, uint64_t id);

/* Answers the input's token, if it has one. */
void core_reply(struct core *core, const struct input *in, int code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Success, with the id of what was made. */
void core_reply_id(struct core *core, const struct input *in, uint64_t id);
struct buf;
/* Why a waiting job waits: a sentence into out, returns the code. The job may be in no list (a
 * probe): then `queued` says whether it would be in the queue. */
const char *job_reason(const struct core *core, const struct job *job, struct buf *out);
/* Appends to the event table; 0 where there is no job, epoch or node. */
void core_event(struct core *core, const char *kind, uint64_t job, uint64_t epoch, uint64_t node,
                const char *fmt, ...) __attribute__((format(printf, 6, 7)));

#endif
