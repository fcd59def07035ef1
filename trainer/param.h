/* The parameter table and the memory behind it. Building it runs twice: once to count, once with
 * memory, by the same code; so no size is computed in two places. Inside the model only. */
#ifndef TRAINER_PARAM_H
#define TRAINER_PARAM_H

#include "trainer/model.h"

/* What a matrix enters products as. */
enum linear_kind {
    LINEAR_RECIPE, /* FP8 in an FP8 run, BF16 in a BF16 run */
    LINEAR_HIGH,   /* embedding, head, eh_proj: BF16 in a BF16 run, else FP32 */
    LINEAR_GATE,   /* the router: always FP32 */
};

/* One Linear, or two that share their input laid below each other (their rows are `part`), or the
 * same again for each expert. */
struct linear {
    enum linear_kind kind;
    float *w, *grad;                   /* [n, k] FP32 master and gradient, experts end to end */
    const float *operand, *operand_dx; /* of Fprop and of Dgrad: w, or its rounded copy */
    bool dy_is_operand;                /* gradients come as Dgrad multiplies them */
    bool x_pow2, dy_pow2;              /* power-of-two scales in Wgrad */
    uint32_t n, k;
    uint32_t part[2], parts;
};
struct vector {
    float *w, *grad;
    uint32_t n;
};

/* A range of back-end memory handed out from the front. base NULL: only counts, and gives NULL. */
struct arena {
    char *base;
    size_t used, size; /* bytes; counting makes size the most that was used at once */
};
void *arena_take(struct arena *a, size_t bytes);
float *arena_floats(struct arena *a, size_t count);
struct mat arena_mat(struct arena *a, size_t rows, size_t cols);

/* Weights, gradients and rounded copies of one kind of parameter: those replicated over ranks, or
 * this rank's experts. */
struct param_memory {
    struct arena weight, grad, low, low_dx;
};

/* A tensor's rounded copies, for Fprop and, where it multiplies in another precision, for Dgrad;
 * NULL: none. */
struct param_copies {
    float *data[2];
    enum precision precision[2];
};

struct params {
    const struct op_table *op;
    struct recipe recipe;
    struct param *item;
    struct param_copies *copies; /* of each item */
    size_t count, capacity;
    struct param_memory dense, expert, copy;
    bool copying; /* tensors added now are copies */
};

/* Restarts the table, keeping the memory. */
void params_begin(struct params *p);
/* Where the table stands, and back to there: what is added then must be the same as before. */
struct params_mark {
    size_t count;
    struct param_memory dense, expert, copy;
};
struct params_mark params_mark(const struct params *p);
void params_rewind(struct params *p, const struct params_mark *mark);
/* At the end of the table: weights and gradients of either kind divide into that many parts. */
void params_pad(struct params *p, uint32_t dense_ways, uint32_t expert_ways);
size_t params_bytes(const struct params *p);
void params_zero_grad(struct params *p);
/* After the counting pass: allocates what it counted. */
void params_allocate(struct params *p);
void params_fini(struct params *p);

/* Add `prefix` + `name`. linear_add may be called again for a second part; expert is -1 or the
 * global id. */
void params_vector(struct params *p, struct vector *v, const char *prefix, const char *name,
                   uint32_t n);
void params_linear(struct params *p, struct linear *l, enum linear_kind kind, int32_t expert,
                   const char *prefix, const char *name, uint32_t rows, uint32_t cols);
/* The next tensor starts on a 64-byte boundary; those of one kind added without this in between lie
 * end to end. */
void params_align(struct params *p);

/* Fresh weights, the same for every layout. */
void params_init_weights(struct params *p, uint64_t seed, double std);
/* Rounded copies from the masters. */
void params_refresh(struct params *p);

#endif
