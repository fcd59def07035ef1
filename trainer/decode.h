/* Decoding one sequence with a cache, in FP32 on the host. What the cache holds for a token and
 * layer is the compressed latent and the rotated shared key, kv_lora_rank + qk_rope_head_dim
 * numbers: keys and values are never expanded. The key's up-projection is folded into the query and
 * the value's is applied after attention (report §2.1.1; the "absorbed" form):
 *
 *   score = (W_UK^T q_nope) . c + q_rope . k_rope,   out = W_UV (sum of probability * c)
 *
 * What a row gives does not depend, to the bit, on the rows it is computed with: products are dot
 * products of one row with one row of weights, in one order of additions whatever the number of
 * rows, and everything else works row by row. So several tokens can be verified at once and give
 * the text that one at a time gives. */
#ifndef TRAINER_DECODE_H
#define TRAINER_DECODE_H

#include <stddef.h>
#include <stdint.h>

#include "trainer/model.h"

#define DECODE_ROWS 32 /* tokens of one call, at most */

struct decoder;

/* Borrows the model (its weights must be host memory, as of op_cpu) and op. */
struct decoder *decoder_create(struct model *model, const struct model_config *config,
                               const struct op_table *op, size_t positions);
void decoder_destroy(struct decoder *d);

/* Appends count tokens to the sequence. The caller sees to it that they fit. */
void decoder_forward(struct decoder *d, const int32_t *tokens, size_t count);
/* Logits [count, vocab] of rows [first, first + count) of the last decoder_forward. */
void decoder_logits(struct decoder *d, size_t first, size_t count, float *out);
size_t decoder_length(const struct decoder *d);
/* Takes back all tokens but the first `length`. */
void decoder_truncate(struct decoder *d, size_t length);

/* The first MTP module over rows [0, count) of the last decoder_forward; next[i] is the token that
 * follows row i. logits: of the token after next[count - 1]. Every position has to be given once,
 * in order; decoder_truncate takes back here as well. */
void decoder_draft(struct decoder *d, const int32_t *next, size_t count, float *logits);
/* The same without a guess: what later ones need, for a small part of the work. */
void decoder_skip_draft(struct decoder *d, const int32_t *next, size_t count);

#endif
