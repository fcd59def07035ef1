/* In which order a rank of a pipeline works: pure functions from (kind, ranks, rank, micro-batches)
 * to a list of actions. That what an action needs is received before it, and sent on after it, is
 * implied (pipeline.c).
 *
 * 1F1B. Rank r of P has stage r of P. It runs P - 1 - r micro-batches forward, then one forward and
 * one backward in turn, then the backward passes that are left. Any number of micro-batches will
 * do. With stages of equal times F and B each rank idles (P - 1)(F + B); rank r keeps activations
 * of at most P - r micro-batches.
 *
 * DualPipeV (DeepSeek's DualPipe cut in half along its symmetry): the stages are laid in a V, rank
 * r has stages r and 2P - 1 - r of 2P; so the model begins and ends on rank 0, and every rank
 * always has work from both directions. Forward of a micro-batch in one direction and backward of
 * another in the other are one joined action, in which the communication of one hides behind the
 * computation of the other. While the pipeline fills and drains, backward passes are split
 * (zero bubble, Qi et al. 2023): gradients of inputs first, because others wait for them, those of
 * weights where the rank would idle. Needs at least 2P micro-batches: with fewer the phase in which
 * both directions are full does not come about.
 *
 * Its bubble in the units of the DeepSeek-V3 report (table 2), where PP = 2P is the number of
 * stages and of DualPipe's ranks, F the time of a stage forward, B of the whole backward pass, W of
 * its part for weights, F&B of a joined pair: (PP/2 - 1)(F&B + B - 3W). That is exact with
 * F = W = B - W, on every rank when F&B = F + B, and on the ranks that idle longest (the last two)
 * when a joined pair is faster than that. A rank keeps activations of at most PP + 1 = 2P + 1
 * stage passes. */
#ifndef PROTO_PIPELINE_SCHEDULE_H
#define PROTO_PIPELINE_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "proto/jobspec.h"

#define PIPELINE_STAGES_MAX 2 /* on one rank */

enum pipeline_op {
    PIPELINE_F, /* forward */
    PIPELINE_B, /* backward, whole */
    PIPELINE_I, /* backward, gradients of inputs only: a W of the same follows later */
    PIPELINE_W, /* backward, gradients of weights */
};
struct pipeline_action {
    enum pipeline_op op;
    uint32_t stage; /* of this rank's: 0, or 1 on the way back in a V */
    uint32_t micro;
    bool joined; /* one action with the next one */
};
struct pipeline_schedule {
    struct pipeline_action *action; /* owned */
    size_t count;
};

/* ---- who has what */
uint32_t pipeline_stages(enum pipeline_kind kind, uint32_t ranks);
uint32_t pipeline_stages_here(enum pipeline_kind kind);
/* Number in the model of stage i of a rank's. */
uint32_t pipeline_stage(enum pipeline_kind kind, uint32_t ranks, uint32_t rank, uint32_t i);
uint32_t pipeline_rank_of(enum pipeline_kind kind, uint32_t ranks, uint32_t stage);
/* Which of that rank's it is. */
uint32_t pipeline_place_of(enum pipeline_kind kind, uint32_t ranks, uint32_t stage);
/* Layers [first, first + count) of n are stage s of S; S <= n gives each at least one. */
void pipeline_layers(uint32_t n, uint32_t stages, uint32_t stage, uint32_t *first, uint32_t *count);

/* ---- in which order */
/* The fewest micro-batches a step may have. */
uint32_t pipeline_micros_min(enum pipeline_kind kind, uint32_t ranks);
/* ERR_CONFIG with fewer. */
int pipeline_schedule_init(struct pipeline_schedule *s, enum pipeline_kind kind, uint32_t ranks,
                           uint32_t rank, uint32_t micros, struct err *err);
/* Forward passes alone, as for validation; any number of micro-batches. */
void pipeline_schedule_forward(struct pipeline_schedule *s, enum pipeline_kind kind, uint32_t ranks,
                               uint32_t rank, uint32_t micros);
void pipeline_schedule_fini(struct pipeline_schedule *s); /* a zeroed one is fine */
/* The most micro-batches that are between forward and last backward at once: of one of the stages
 * here, or (stage PIPELINE_STAGES_MAX) of all. */
uint32_t pipeline_schedule_peak(const struct pipeline_schedule *s, uint32_t stage);

#endif
