#include "trainer/layer.h"

/* Logits at a time: few enough for a cache, and enough rows that packing the head's weights pays.
 */
#define CHUNK_FLOATS ((size_t)1 << 22)

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

void head_build(struct head *h, struct builder *b, struct linear *lm)
{
    size_t rows = b->shape.rows, vocab = b->config->vocab_size;
    size_t chunk = CHUNK_FLOATS / vocab;
    chunk = smaller(chunk < 64 ? 64 : chunk, rows);
    b->scratch->used = 0;
    h->lm = lm;
    h->logits = arena_mat(b->scratch, chunk, vocab);
    h->loss = arena_floats(b->scratch, rows);
    linear_reserve(b, lm, chunk);
}

double head_loss(const struct ctx *c, struct head *h, struct mat x, const int32_t *target,
                 float scale, struct mat dx)
{
    for (size_t first = 0; first < x.rows; first += h->logits.rows) {
        size_t offset[2], rows = smaller(h->logits.rows, x.rows - first);
        struct op_groups all = one_group(rows, offset);
        struct mat in = mat_rows(x, first, rows), logits = mat_rows(h->logits, 0, rows);
        linear_forward(c, h->lm, all, in, logits);
        c->op->cross_entropy(logits, target + first, scale, h->loss + first);
        if (scale != 0) {
            linear_backward_input(c, h->lm, all, logits, mat_rows(dx, first, rows), false);
            linear_backward_weight(c, h->lm, all, logits, in);
        }
    }
    return c->op->sum(h->loss, x.rows);
}

void head_logits(const struct ctx *c, struct head *h, struct mat x, float *host_out)
{
    for (size_t first = 0; first < x.rows; first += h->logits.rows) {
        size_t offset[2], rows = smaller(h->logits.rows, x.rows - first);
        struct mat logits = mat_rows(h->logits, 0, rows);
        linear_forward(c, h->lm, one_group(rows, offset), mat_rows(x, first, rows), logits);
        c->op->copy_to_host(host_out + first * logits.cols, logits.data,
                            rows * logits.cols * sizeof(float));
    }
}
