/* What a model consists of. Inside the model only: model.c builds it, model_pass.c runs it.
 *
 * A rank holds one or two runs of consecutive layers, its stages. What a micro-batch leaves behind
 * for the backward pass lies in a slot: as many micro-batches may be under way in a stage as it has
 * slots. The parameters are the same in all of them. */
#ifndef TRAINER_MODEL_PARTS_H
#define TRAINER_MODEL_PARTS_H

#include "trainer/layer.h"

struct slot {
    struct block *block; /* owned; of the stage's layers */
    struct mtp *mtp;     /* owned; of the last stage */
    int32_t *token, *target;
    /* Output of the layers; where the model goes on elsewhere also its gradient, and after the
     * backward pass the gradient of the input. */
    struct mat out;
    /* of the last stage */
    struct mat hidden;     /* `out`, normed */
    float *rstd;           /* of that norm */
    struct mat d, dhidden; /* gradients along the residual stream, and of hidden */
    struct later later;    /* of a backward pass without its gradients of weights */
};

struct stage {
    struct model_stage what;
    bool first, last;  /* embeds; has the heads */
    struct slot *slot; /* owned; what.slots of them */
};

struct model {
    struct model_options options;
    struct model_config config;
    struct ctx ctx;
    struct shape shape;
    struct params params;
    struct arena keep, scratch, host;
    struct router *router; /* owned; of all layers of the model */
    size_t router_count;

    struct stage stage[MODEL_STAGES_MAX];
    uint32_t stages;
    struct linear embed, lm_head;
    bool embed_is_copy;
    struct vector norm;
    struct head head;
    int32_t *host_token;
};

#endif
