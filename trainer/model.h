/* A DeepseekV3 model with hand-written backward passes: forward and backward of micro-batches,
 * gradients accumulated in FP32. What the optimiser, the checkpoint and the tests may touch is the
 * parameter table and the routers. */
#ifndef TRAINER_MODEL_H
#define TRAINER_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "proto/jobspec.h"
#include "proto/model_config.h"
#include "trainer/comm.h"
#include "trainer/mesh.h"
#include "trainer/op.h"

#define MODEL_STAGES_MAX 2 /* on one rank: pipeline_schedule.h */

/* A run of consecutive decoder layers. Layer 0 brings the embedding with it, the last one the last
 * norm, the head and the MTP modules. */
struct model_stage {
    uint32_t first_layer, layers;
    uint32_t slots; /* micro-batches that may be between their forward and their last backward */
};
struct model_options {
    const struct model_config *config; /* borrowed */
    const struct op_table *op;         /* borrowed */
    const struct mesh *mesh;           /* borrowed; which experts live here */
    struct comm *expert_comm;          /* borrowed; the expert group, size mesh->expert */
    enum precision precision;
    const struct recipe *recipe; /* borrowed until model_create returns; NULL: the precision's */
    uint32_t micro_batch, sequence_length;
    uint32_t shortest_context; /* that model_set_context may set; 0: sequence_length */
    double balance_alpha, mtp_lambda, init_std;
    uint64_t seed;
    struct model_stage stage[MODEL_STAGES_MAX]; /* what this rank holds, in the model's order */
    uint32_t stages;                            /* 0: the whole model as one, with one slot */
};

/* One tensor this rank holds. Names and shapes are the published ones (reference deepseek-v3 §8.2);
 * with n layers the MTP module k is model.layers.<n+k>.*, its embedding and head are the main
 * model's and not listed twice. */
struct param {
    char name[128];
    uint32_t rows, cols; /* [rows, cols]; a vector has cols 1 and is_vector */
    bool is_vector;
    size_t count;
    float *weight;  /* FP32 master, back-end memory */
    float *grad;    /* FP32 */
    bool quantised; /* a Linear of the FP8 recipe */
    int32_t expert; /* global expert id, or -1: replicated over the dense group */
    bool
        copy; /* of another stage's tensor, which has the optimiser's state: only weight and grad */
};
/* All parameters replicated over the dense group, or all of this rank's experts, as one array each
 * of weights and gradients: the tensors of the table lie in it, some with a few unused zeros
 * between them, and zeros at the end so that it divides into equal 64-byte aligned parts over the
 * group. For reductions and the optimiser. Copies are in neither. */
struct param_range {
    float *weight, *grad;
    size_t count;
};
/* One MoE layer's balancing state. */
struct router {
    char name[128]; /* model.layers.N.mlp.gate.e_score_correction_bias */
    uint32_t experts;
    float *bias;    /* host memory [experts]; selection only */
    uint64_t *load; /* host memory [experts]: tokens routed by this rank since model_router_reset */
};
struct model_losses { /* sums; the caller divides */
    double loss;      /* nats over main targets */
    double mtp_loss;  /* nats over MTP targets, depth 1 (mean over depths if more) */
    double balance;   /* sequence-wise loss, summed over sequences and layers, alpha included */
    uint64_t tokens;  /* main targets */
};

struct model;
/* Called during a backward pass as gradients become final: those at and after these places in the
 * arrays of dense parameters and of experts, which fall from call to call. What is before the last
 * ones is final when the pass is over. */
struct model_final {
    void (*fn)(void *ctx, const float *dense, const float *expert);
    void *ctx;
};
/* Allocates everything, once; ERR_CONFIG when the model or shape is impossible. */
int model_create(struct model **model, const struct model_options *options, struct err *err);
void model_destroy(struct model *model);
struct param *model_params(struct model *model, size_t *count);
struct param_range model_param_range(struct model *model, bool experts);
/* The input embedding; NULL where no stage here needs it. *is_copy: the first stage is elsewhere.
 */
const struct param *model_embedding(struct model *model, bool *is_copy);
/* Those of all layers of the model, in order; only the ones of layers here count loads. */
struct router *model_routers(struct model *model, size_t *count);
void model_router_reset(struct model *model);
size_t model_bytes(const struct model *model); /* what create set aside; what is never touched takes
                                                  no memory on the CPU */

/* Weights as a pure function of (seed, tensor name, element): the same for every layout. Norms are
 * 1, matrices normal(0, init_std). */
void model_init(struct model *model);
/* Call after weights changed and before the next forward: refreshes the low-precision copies. */
void model_refresh(struct model *model);
void model_zero_grad(struct model *model);
/* From here on, between steps only: each sequence is cut into equal ones of `context` tokens, which
 * divides sequence_length; and the weight of the MTP loss. */
void model_set_context(struct model *model, uint32_t context);
void model_set_mtp_lambda(struct model *model, double lambda);

/* ---- one micro-batch through one stage */
struct model_pass {
    uint32_t stage, slot; /* which of this rank's stages; where its activations lie */
    bool gradient;        /* a backward pass will follow */
    bool count_load;      /* add to the router loads */
    bool split;           /* backward: gradients of weights of products are left to model_weights */
    double grad_scale;    /* see model_train */
    const struct model_final *final; /* backward, of all that is added here the last; may be NULL */
};
/* What goes from stage to stage, [micro_batch * sequence_length, hidden]: the input, to be filled
 * before the forward pass unless the stage embeds; the output; the gradient of the output, to be
 * filled before the backward pass unless the stage has the heads, which then is that of the input.
 * Output and gradient may be the same memory. */
struct mat model_input(struct model *model, uint32_t stage, uint32_t slot);
struct mat model_output(struct model *model, uint32_t stage, uint32_t slot);
struct mat model_gradient(struct model *model, uint32_t stage, uint32_t slot);
/* tokens: as in model_train; read where the stage embeds or has the heads. The passes of one stage
 * are collective over the expert group. */
int model_forward(struct model *model, const struct model_pass *pass, const int32_t *tokens,
                  struct model_losses *sums, struct err *err);
int model_backward(struct model *model, const struct model_pass *pass, struct err *err);
/* The rest of a split backward pass; the slot is in use until then. */
void model_weights(struct model *model, const struct model_pass *pass);

/* ---- one micro-batch through a whole model: a rank that holds one stage of all layers */
/* tokens: host, [micro_batch][sequence_length + 1]. Targets are tokens shifted by one (and by two
 * for MTP, reference §1.4). grad_scale multiplies the summed loss before the backward pass: 1 /
 * (targets in the global batch) gives the gradient of the mean; the balance loss is scaled by
 * grad_scale * sequence_length (a mean over sequences). Adds to grads, router loads and *sums.
 * Collective over the expert group. */
int model_train(struct model *model, const int32_t *tokens, double grad_scale,
                struct model_losses *sums, struct err *err);
/* Forward only. count_load: add to the router loads. */
int model_eval(struct model *model, const int32_t *tokens, bool count_load,
               struct model_losses *sums, struct err *err);
/* Logits of the last model_eval, [micro_batch * sequence_length, vocab], host copy into out. For
 * tests and generation. */
int model_logits(struct model *model, const int32_t *tokens, float *out, struct err *err);

#endif
