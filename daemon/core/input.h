/* Everything that can happen to the coordinator. Plain data, no protobuf: the simulator makes the
 * same values. All pointers are borrowed for the duration of core_step. */
#ifndef DAEMON_CORE_INPUT_H
#define DAEMON_CORE_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A reply is owed to this token; 0: to nobody. Chosen by the shell, never reused while the process
 * lives. */
typedef uint64_t reply_token;
/* One connection of one worker. Chosen by the shell, never reused while the process lives; 0: none.
 */
typedef uint64_t session_id;

enum input_kind {
    INPUT_TICK, /* a deadline of core_deadline passed, or nothing */
    INPUT_JOB_SUBMIT,
    INPUT_JOB_CANCEL,
    INPUT_JOB_HOLD,
    INPUT_JOB_RELEASE,
    INPUT_NODE_DRAIN,
    INPUT_NODE_RESUME,
    INPUT_CKPT_VERIFIED,
    INPUT_WORKER_REGISTER,
    INPUT_WORKER_GONE, /* the connection broke */
    INPUT_HEARTBEAT,
    INPUT_ATTEMPT_REPORT,
    INPUT_SHARD_REPORT,
    INPUT_STEP_REPORT,
    INPUT_CKPT_PUBLISHED, /* a worker acknowledged EFFECT_CKPT_PUBLISH */
    INPUT_CKPT_REMOVED,
    INPUT_JOB_UPDATE,
    INPUT_JOB_RESIZE,
    INPUT_JOB_SUSPEND,
    INPUT_JOB_RESUME,
    INPUT_JOB_REQUEUE, /* stop with a save, and start again when its turn comes */
    INPUT_QUEUE_SET,
    INPUT_ACCOUNT_SET,
    INPUT_QUOTA_SET,
    INPUT_RESERVATION_CREATE, /* the reply's id is its id */
    INPUT_RESERVATION_CANCEL,
    INPUT_STOP_ACKED, /* a worker acknowledged EFFECT_ATTEMPT_STOP */
    INPUT_GUARD_REPORT,
};

struct input_submit {
    const struct jobspec *spec; /* checked by the shell, jobspec_parse and jobspec_check_model */
    const char *place;          /* of the job file, for messages; NULL: the job's name */
    const char *spec_json;      /* canonical */
    const char *model_json;     /* or NULL */
    const char *workdir;
    const char *user;
    const char *key;          /* or NULL */
    const char *request_hash; /* sha256 hex of the request as sent */
    bool dry_run;             /* check against the cluster, reply, change nothing */
};
struct input_gpu {
    uint32_t index;
    const char *uuid;
    const char *model;
    uint64_t memory_bytes;
    const char *health; /* "ok", "ok: " and what is worth saying, or what is wrong */
};
struct input_exit {
    uint32_t rank;
    int32_t code;   /* -1 when killed by a signal or unknown */
    int32_t signal; /* 0 when it exited */
    int64_t at_ms;
    const char *last_words; /* or NULL */
};
/* Cumulative; phase as in AttemptReport: 1 accepted, 2 started, 3 ended. */
struct input_attempt_report {
    uint64_t job, epoch;
    uint32_t phase;
    const char *error, *stuck; /* or NULL */
    const struct input_exit *exits;
    size_t exit_count;
};
struct input_register {
    const char *name, *boot_id, *version, *addr;
    const struct input_gpu *gpus;
    size_t gpu_count;
    const struct input_attempt_report *attempts;
    size_t attempt_count;
    uint64_t term_seen;
};
struct input_shard {
    uint64_t job, epoch, step;
    uint32_t world_size, rank;
    const char *file, *xxh3, *sha256;
    uint64_t bytes;
    const char *layout;
};
struct input_metric {
    uint64_t step, epoch, tokens;
    /* NaN: absent */
    double loss, mtp_loss, grad_norm, lr, tokens_per_s, balance_maxvio, valid_loss;
    double valid_maxvio;
    const char *layer_maxvio; /* such as 4:0.31,5:0.28; or NULL */
    uint64_t step_ms;
};
struct input_steps {
    uint64_t job, epoch, steps;
    const struct input_metric *metrics;
    size_t metric_count;
    uint64_t ckpt_stall_ms, data_wait_ms;
};

/* As GuardReport. */
struct input_guard {
    uint64_t job, epoch, decided, step, back_to;
    const char *action, *text;
    bool has_odd_rank;
    uint32_t odd_rank;
};

/* Changes the fields named in `fields`, leaves the others alone. INT64_MIN lifts a limit. */
enum job_field {
    JOB_FIELD_PRIORITY = 1,
    JOB_FIELD_QUEUE = 2,
    JOB_FIELD_ACCOUNT = 4,
    JOB_FIELD_TIME_LIMIT = 8,   /* 0: none */
    JOB_FIELD_NOT_BEFORE = 16,  /* 0: none */
    JOB_FIELD_DEADLINE = 32,    /* INT64_MIN: none */
    JOB_FIELD_ARRAY_LIMIT = 64, /* of its whole array; 0: none */
    JOB_FIELD_PREEMPTIBLE = 128,
    JOB_FIELD_MIN_RUNTIME = 256,
};
struct input_job_update {
    uint64_t job;
    const char *user; /* who asks */
    uint32_t fields;  /* of enum job_field */
    int64_t priority, time_limit_ms, not_before_ms, deadline_ms, array_limit, min_runtime_ms;
    const char *queue, *account;
    bool preemptible;
};
enum queue_field {
    QUEUE_FIELD_PRIORITY = 1,
    QUEUE_FIELD_WEIGHT = 2,
    QUEUE_FIELD_NODES_MAX = 4,
    QUEUE_FIELD_JOBS_MAX = 8,
    QUEUE_FIELD_USER_NODES_MAX = 16,
    QUEUE_FIELD_USER_JOBS_MAX = 32,
    QUEUE_FIELD_WAITING_MAX = 64,
    QUEUE_FIELD_PRIORITY_MAX = 128,
    QUEUE_FIELD_TIME_LIMIT = 256,
    QUEUE_FIELD_PREEMPTS = 512,
    QUEUE_FIELD_PREEMPTIBLE = 1024,
    QUEUE_FIELD_ACCEPTS = 2048,
    QUEUE_FIELD_STARTS = 4096,
};
struct input_queue_set { /* makes the queue when there is none of that name */
    const char *name, *user;
    uint32_t fields;
    int64_t priority, weight_milli, nodes_max, jobs_max, user_nodes_max, user_jobs_max;
    int64_t waiting_max, priority_max, time_limit_ms;
    bool preempts, preemptible, accepts, starts;
};
enum account_field {
    ACCOUNT_FIELD_SHARES = 1,
    ACCOUNT_FIELD_NODES_MAX = 2,
    ACCOUNT_FIELD_ACCEPTS = 4
};
struct input_account_set {
    const char *name, *user;
    uint32_t fields;
    int64_t shares, nodes_max;
    bool accepts;
};
/* How many nodes the running jobs of this user, account and class may have together. NULL: of all;
 * "*": of each one. Replaces the quota for the same three. */
struct input_quota_set {
    const char *user, *account, *class, *reason;
    const char *by_user;
    int64_t nodes;      /* INT64_MIN: there is none any more */
    int64_t expires_ms; /* INT64_MIN: never */
};
struct input_reservation {
    uint64_t id;   /* to cancel */
    bool is_maint; /* else for the jobs of `user` and `account`, whichever is not NULL */
    const char *nodes, *user, *account, *reason, *by_user;
    int64_t start_ms, end_ms;
};

struct input {
    enum input_kind kind;
    int64_t now_ms; /* stamped by the pump; never goes backwards, also across restarts */
    reply_token token;
    session_id session; /* of worker inputs */
    union {
        struct input_submit submit;
        struct { /* JOB_CANCEL, JOB_HOLD, JOB_RELEASE, JOB_SUSPEND, JOB_RESUME, JOB_REQUEUE */
            uint64_t job;
            const char *user, *reason;
        } job;
        struct { /* NODE_DRAIN, NODE_RESUME */
            const char *name, *user, *reason;
        } node;
        struct { /* CKPT_VERIFIED, CKPT_PUBLISHED, CKPT_REMOVED */
            uint64_t ckpt;
            bool ok;
            const char *text;
        } ckpt;
        struct { /* JOB_RESIZE; equal unless elastic */
            uint64_t job;
            const char *user;
            uint32_t nodes_min, nodes_max;
        } resize;
        struct { /* STOP_ACKED */
            uint64_t job, epoch;
        } acked;
        struct input_job_update update;
        struct input_queue_set queue;
        struct input_account_set account;
        struct input_quota_set quota;
        struct input_reservation reservation;
        struct input_register reg;
        struct input_attempt_report attempt;
        struct input_shard shard;
        struct input_steps steps;
        struct input_guard guard;
    } u;
};

#endif
