/* Everything the coordinator may ask of the world. Effects are released only after the state they
 * come from is durable, and all are idempotent: an order is keyed by (job, epoch) or by checkpoint,
 * and is sent again when a worker registers. Pointers are owned by the effect list and live until
 * effect_list_reset. */
#ifndef DAEMON_CORE_EFFECT_H
#define DAEMON_CORE_EFFECT_H

#include "daemon/core/input.h"

enum effect_kind {
    EFFECT_REPLY,
    EFFECT_ATTEMPT_START,
    EFFECT_ATTEMPT_STOP,
    EFFECT_ATTEMPT_FORGET,
    EFFECT_CKPT_PUBLISH,
    EFFECT_CKPT_REMOVE,
    EFFECT_EVENT,        /* something was appended to the event table; wakes --watch and JobWait */
    EFFECT_EPOCH_OVER,   /* rendezvous values of this (job, epoch) are void */
    EFFECT_DROP_SESSION, /* close this worker connection: replaced by a newer one, or of a newer
                            term */
};

struct effect_start {
    uint64_t job, epoch;
    const char *name, *user, *spec_json, *model_json, *workdir;
    uint32_t node_rank, node_count, rank_first, world_size;
    const uint32_t *gpu_index;
    size_t gpu_count;
    const char *master_addr;
    uint32_t master_port;
    const char *checkpoint_dir;
    uint64_t array_job; /* 0: it is not of an array */
    uint32_t array_index, array_size;
    uint64_t resume_ckpt, resume_step; /* 0: from scratch */
    const char *resume_path, *resume_manifest;
};

struct effect {
    enum effect_kind kind;
    union {
        struct {
            reply_token token;
            int code;         /* 0 or ERR_* */
            uint64_t id;      /* job id of a submit */
            bool existing;    /* of a submit: the key was known */
            const char *text; /* "" on success, else what, why, what to do */
        } reply;
        struct effect_start start; /* to `session` */
        struct {
            uint64_t job, epoch, grace_ms;
            const char *reason;
        } stop; /* to `session`; also forget and epoch_over use job, epoch */
        struct {
            uint64_t ckpt;
            const char *path, *manifest; /* manifest NULL for a removal */
        } ckpt;                          /* to `session` */
        struct {
            uint64_t seq, job; /* job 0: none */
        } event;
    } u;
    session_id session; /* of orders and EFFECT_DROP_SESSION */
};

#endif
