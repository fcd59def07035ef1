/* What the forward pass leaves for the backward pass, as narrow as the recipe has it. */
#include "trainer/layer.h"

void kept_build(struct kept *k, struct builder *b, enum op_format format, size_t parts, size_t rows,
                size_t cols)
{
    bool packs = b->op->pack != NULL && format != OP_F32;
    *k = (struct kept){.format = packs ? format : OP_F32, .parts = parts};
    k->full = arena_mat(packs ? b->scratch : b->keep, rows, cols);
    if (packs) {
        k->codes = arena_mat(b->keep, rows, parts * op_packed_cols(format, cols / parts));
    }
}

static struct mat part_of(struct mat m, size_t parts, size_t i)
{
    return mat_cols(m, i * (m.cols / parts), m.cols / parts);
}

void kept_pack(const struct ctx *c, const struct kept *k, size_t rows)
{
    struct mat full = mat_rows(k->full, 0, rows), codes = mat_rows(k->codes, 0, rows);
    for (size_t i = 0; k->format != OP_F32 && i < k->parts; i++) {
        c->op->pack(k->format, part_of(full, k->parts, i), part_of(codes, k->parts, i));
    }
}

struct mat kept_unpack(const struct ctx *c, const struct kept *k, size_t rows)
{
    struct mat full = mat_rows(k->full, 0, rows), codes = mat_rows(k->codes, 0, rows);
    for (size_t i = 0; k->format != OP_F32 && i < k->parts; i++) {
        c->op->unpack(k->format, part_of(codes, k->parts, i), part_of(full, k->parts, i));
    }
    return full;
}
