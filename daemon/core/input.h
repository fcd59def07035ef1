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
};

struct input_submit {
    const struct jobspec *spec; /* checked by the shell, jobspec_parse and jobspec_check_model */
    const char *place;      /* of `nodes` in the job file, for a message; NULL: the job's name */
    const char *spec_json;  /* canonical */
    const char *model_json; /* or NULL */
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
    const char *health; /* "ok" or what is wrong */
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
    const char *error; /* or NULL */
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
    uint64_t step_ms;
};
struct input_steps {
    uint64_t job, epoch, steps;
    const struct input_metric *metrics;
    size_t metric_count;
    uint64_t ckpt_stall_ms, data_wait_ms;
};

struct input {
    enum input_kind kind;
    int64_t now_ms; /* stamped by the pump; never goes backwards, also across restarts */
    reply_token token;
    session_id session; /* of worker inputs */
    union {
        struct input_submit submit;
        struct { /* JOB_CANCEL, JOB_HOLD, JOB_RELEASE */
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
        struct input_register reg;
        struct input_attempt_report attempt;
        struct input_shard shard;
        struct input_steps steps;
    } u;
};

#endif
