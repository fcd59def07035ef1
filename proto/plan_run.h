/* Time and money of a run that does not exist yet, and a mesh for it. Pure arithmetic. What no
 * arithmetic can know, the share of the peak that a step reaches, is given; DeepSeek-V3's was
 * 0.3894 (arXiv 2505.09343, table 4, causal FLOPs over the BF16 peak). */
#ifndef PROTO_PLAN_RUN_H
#define PROTO_PLAN_RUN_H

#include <stdint.h>

#include "proto/plan_memory.h"

#define PLAN_MFU                    0.3894
#define PLAN_PEAK_FLOPS             989.4e12 /* H100 and H800, BF16, dense */
#define PLAN_MICRO_USD_PER_GPU_HOUR 2000000  /* the report's price, table 1 */

/* Training FLOPs of one token: 6 a parameter of its products (active ones with the head, without
 * embedding, vectors and MTP modules), and causal attention, 3 L S n_h (d_qk + d_v): the convention
 * of the figures above. */
double plan_flops_per_token(const struct model_config *model, uint32_t sequence_length);

struct plan_cost {
    double flops_per_token;
    double step_ms, bubble_ms; /* the bubble is a part of the step */
    double days;
    uint64_t steps;
    uint64_t gpu_ms;
    int64_t micro_usd;
};
/* The bubble is that of the schedule with equal stages whose backward pass takes twice the forward
 * pass, half of it for weights (pipeline_schedule.h). */
struct plan_cost plan_cost_of(const struct plan_run *run, uint64_t tokens, double mfu,
                              double peak_flops, int64_t micro_usd_per_gpu_hour);

/* Fills in pipeline, expert, data and micros for `gpus` GPUs and `global_batch` sequences a step:
 * of all meshes whose every rank stays within memory_bytes the one with the fewest ranks in a
 * pipeline, then in an expert group. Only what is 0 in *run is chosen. ERR_CONFIG says what the
 * nearest one would need, and what lowers it. */
int plan_mesh(struct plan_run *run, uint32_t gpus, uint32_t global_batch, uint64_t memory_bytes,
              struct err *err);
/* The fullest rank's. */
int plan_memory_most(const struct plan_run *run, struct plan_memory *most, struct err *err);

#endif
