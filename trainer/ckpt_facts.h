/* What a checkpoint says of its run besides the tensors: where it stands, and what it was made
 * with. The same text from every rank; it is the `layout` of the manifest, and the metadata of each
 * shard. docs/formats.md lists the keys. */
#ifndef TRAINER_CKPT_FACTS_H
#define TRAINER_CKPT_FACTS_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"
#include "proto/jobspec.h"
#include "proto/model_config.h"
#include "trainer/guard.h"
#include "trainer/mesh.h"

struct ckpt_source { /* of train.data.train, in that order */
    uint64_t tokens; /* in it */
    uint64_t epoch;  /* sequences in one pass over it */
    uint64_t shown;  /* sequences so far */
};
struct ckpt_facts {
    uint64_t step;     /* optimiser steps done */
    uint64_t tokens;   /* targets trained on */
    uint64_t position; /* sequences consumed: the data cursor */
    uint64_t seed;     /* of data order and initial weights; there is no other random state */
    uint64_t corpus_tokens;
    uint32_t sequence_length, global_batch;
    char precision[8];
    uint32_t pipeline, expert, data;
    char schedule[16]; /* of the pipeline; "": an older checkpoint */
    bool parted;       /* ZeRO-1 */
    uint32_t threads; /* of this rank's back end; not in the text, ranks may differ. 0: not known */
    char model_sha256[65], spec_sha256[65]; /* of the canonical JSON of each */
    bool weights_only;   /* no optimiser state: where a run can begin, not where one stood */
    double loss;         /* of the last step, nats a token; NAN: none, or not known */
    double mtp_loss;     /* the same */
    double valid_loss;   /* of the last validation, after valid_step; NAN: none */
    uint64_t valid_step; /* 0: none */
    struct guard_state guard;
    struct ckpt_source sources[DATA_SOURCES_MAX];
    uint32_t source_count; /* 0: not known */
    char *model;           /* owned; config.json of the model. NULL: an older checkpoint */
    char *run;             /* owned; {"name","stage","train"} of the job file, or NULL */
    char *origin;          /* owned; where the first weights came from. NULL: they were random */
};

/* All but step, tokens and position, and what comes of training. */
void ckpt_facts_init(struct ckpt_facts *f, const struct jobspec *spec,
                     const struct model_config *model, const struct mesh *mesh, uint32_t threads,
                     uint64_t corpus_tokens);
/* Of weights that come from elsewhere: step 0, no run. */
void ckpt_facts_init_weights(struct ckpt_facts *f, const struct model_config *model, uint64_t seed,
                             const char *origin);
void ckpt_facts_fini(struct ckpt_facts *f); /* a zeroed one is fine */
/* Canonical JSON object. Caller frees. */
char *ckpt_facts_encode(const struct ckpt_facts *f);
/* ERR_CORRUPT with `name` in the text; *f is then empty. */
int ckpt_facts_parse(struct ckpt_facts *f, const char *json, const char *name, struct err *err);

/* Says in the log where a run that resumes differs from the checkpoint's. */
void ckpt_facts_warn(const struct ckpt_facts *was, const struct ckpt_facts *is);

#endif
