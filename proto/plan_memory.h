/* What a run takes of a GPU's memory, before it runs: the plan that the CUDA back end allocates by,
 * for every rank of a pipeline. Pure arithmetic over shapes; nothing of it is a measurement.
 *
 * Weights. A Linear of the FP8 recipe is there twice in E4M3, row and column major, because Hopper
 * multiplies 8-bit operands along their rows only: once for Fprop, once for Dgrad, a scale for each
 * 128x128 block. Other weights are BF16, norms and router biases FP32. Gradients are FP32, whole.
 * FP32 master weights and the moments are divided over the ranks that share a parameter (ZeRO-1):
 * data x expert ranks for dense ones, data ranks for an expert's. In host memory are the moving
 * average and the copy of its share of the state that a rank writes a checkpoint from.
 *
 * Activations are what the recipe keeps (docs/recipe.md), at the width that it keeps them, of every
 * stage pass that the schedule has between forward and last backward: the peak is found by walking
 * the schedule. One E5M6 tensor is both the attention's output in its backward pass and the input
 * of o_proj (report 3.3.3). Outputs of experts are not kept: the gradient of a gate weight is that
 * of the SwiGLU product times the product. After a split backward pass the gradients that Wgrad
 * waits for are counted besides.
 *
 * Workspace is what one layer's passes need while they run, the largest layer's, twice where a
 * forward and a backward pass are joined. `reserved` is what the driver and the libraries take. */
#ifndef PROTO_PLAN_MEMORY_H
#define PROTO_PLAN_MEMORY_H

#include <stdint.h>

#include "lib/err.h"
#include "proto/jobspec.h"
#include "proto/model_config.h"

/* Rows that a rank's experts get over the mean, which memory is set aside for. */
#define PLAN_EXPERT_HEADROOM 0.25
/* CUDA context, channels of NCCL, workspaces of cuBLASLt and cuDNN: an assumption. */
#define PLAN_RESERVED_BYTES ((uint64_t)3 << 30)
/* Two buckets in which gradients are reduced while the backward pass goes on. */
#define PLAN_BUCKET_BYTES ((uint64_t)256 << 20)

struct plan_run {
    const struct model_config *model; /* borrowed */
    struct recipe recipe;
    enum pipeline_kind kind;
    uint32_t pipeline, expert, data;
    uint32_t zero; /* as in train_spec */
    uint32_t sequence_length, micro_batch;
    uint32_t micros; /* micro-batches of a rank a step */
    bool ema;
};

struct plan_memory { /* bytes, of one rank */
    uint64_t params; /* a count: of parameters that live here */
    uint64_t weights, gradients, optimizer, activations, workspace, reserved;
    uint64_t total;  /* of the six */
    uint64_t host;   /* the moving average, and a checkpoint's copy */
    uint32_t passes; /* stage passes kept at the peak */
    uint32_t stage_count, first_layer[2], layers[2]; /* what is here */
};

/* The run that a job file describes, on `ranks` ranks: pipeline x expert x data. */
struct plan_run plan_run_of(const struct train_spec *train, const struct model_config *model,
                            uint32_t ranks);
/* For the ranks with this pipeline index. ERR_CONFIG when the mesh or the schedule is impossible.
 */
int plan_memory(const struct plan_run *run, uint32_t pipeline_index, struct plan_memory *out,
                struct err *err);

#endif
