/* The training loop of one rank. train.c is the only file that knows the order of things in a step.
 */
#ifndef TRAINER_TRAIN_H
#define TRAINER_TRAIN_H

#include <signal.h>

#include "lib/err.h"
#include "proto/jobspec.h"
#include "proto/model_config.h"
#include "trainer/comm.h"
#include "trainer/mesh.h"
#include "trainer/op.h"

struct reporter;

struct train_options { /* all borrowed */
    const struct jobspec *spec;
    const struct model_config *config;
    const struct mesh *mesh;
    const struct op_table *op;
    struct comm *world; /* all ranks */
    struct comm
        *batch; /* the ranks that share the batch: dense parameters are replicated over them */
    struct comm *expert; /* the ranks that hold different experts of the same copy */
    struct comm *data;   /* the ranks that hold the same experts */
    struct comm *peers;  /* the ranks of this pipeline, for send and recv; NULL: just this one */
    struct comm *ends;   /* the ranks that share the embedding (tie.h); NULL: not this one */
    const char *ckpt_dir;
    const char *resume_dir;    /* a committed checkpoint, or NULL */
    const char *tb_dir;        /* TensorBoard event files, or NULL */
    struct reporter *reporter; /* NULL in tests */
    uint64_t epoch;
    uint32_t threads;                  /* of the back end, for the record */
    const volatile sig_atomic_t *stop; /* set by a signal: save and leave */
};

/* 0 when the last step is done and its checkpoint was acknowledged; ERR_PREEMPTED when asked to
 * stop, saved; ERR_NUMERIC, ERR_COMM, ERR_STALE, ERR_CORRUPT, ERR_NOSPACE, ERR_IO, ERR_DATA,
 * ERR_AGAIN. */
int train_run(const struct train_options *options, struct err *err);

#endif
