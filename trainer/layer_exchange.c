/* Moving rows of the mixture between the ranks of the tokens and those of the experts, by
 * all-to-all, while this rank computes what does not wait for them. Rows travel as codes of the
 * grid that the recipe has them on (FP8 1 byte a number and a scale a tile, BF16 2), and come out
 * as the numbers that they were, to the bit. */
#include <assert.h>

#include "trainer/layer.h"
#include "trainer/overlap.h"
#include "trainer/route.h"

/* ---- formats. Gradients are rounded only where dispatch and combine say so; what the forward pass
 * sends was stored before. */

static enum op_format wire_format(const struct ctx *c, enum precision p, enum recipe_scale scale,
                                  bool forward)
{
    bool on_grid = forward || recipe_rounds(&c->recipe, p);
    return c->op->pack != NULL && on_grid ? recipe_stored(&c->recipe, p, scale) : OP_F32;
}

static enum op_format there(const struct ctx *c, bool forward)
{
    return wire_format(c, c->recipe.dispatch, c->recipe.dispatch_scale, forward);
}

static enum op_format back(const struct ctx *c, bool forward)
{
    return wire_format(c, c->recipe.combine, RECIPE_SCALE_EXACT, forward);
}

/* Room for rows of x as they travel. */
static struct mat codes_in(struct mat room, enum op_format format, struct mat x)
{
    return mat_of(room.data, x.rows, op_packed_cols(format, x.cols));
}

/* x as it travels: in `room`, or where it is. */
static struct mat packed(const struct ctx *c, struct mat room, enum op_format format, struct mat x)
{
    if (format == OP_F32) {
        return x;
    }
    struct mat codes = codes_in(room, format, x);
    c->op->pack(format, x, codes);
    return codes;
}

/* ---- the other thread's part */

/* What this rank sends to another and gets from it. */
static void count_rows(struct moe *m, uint32_t rank, uint32_t first, uint32_t count)
{
    m->rows_out[rank] = m->rows_in[rank] = 0;
    for (uint32_t e = 0; e < count; e++) {
        m->rows_out[rank] += m->sent[first + e];
    }
    for (uint32_t e = 0; e < m->local; e++) {
        m->rows_in[rank] += m->received[rank * m->local + e];
    }
}

/* Tells every rank how many rows it gets for each of its experts; works out where arriving rows
 * belong. */
static int exchange_counts(struct moe *m, struct comm *comm, struct err *err)
{
    uint32_t ranks = m->mesh->expert, first, count;
    for (uint32_t r = 0; r < ranks; r++) {
        mesh_expert_range(m->mesh, m->experts, r, &first, &count);
        m->bytes_out[r] = count * sizeof *m->sent;
        m->bytes_in[r] = m->local * sizeof *m->received;
    }
    TRY(comm->ops->all_to_all_v(comm, m->sent, m->bytes_out, m->received, m->bytes_in, err));
    size_t rows = route_merge(m->received, ranks, m->local, m->offset, m->host_from, m->host_to);
    assert(rows <= m->merged.rows);
    for (uint32_t r = 0; r < ranks; r++) {
        mesh_expert_range(m->mesh, m->experts, r, &first, &count);
        count_rows(m, r, first, count);
    }
    return 0;
}

static int carry(void *arg, struct err *err)
{
    struct moe *m = arg;
    const struct transfer *t = &m->transfer;
    if (t->counts) {
        TRY(exchange_counts(m, t->comm, err));
    }
    for (uint32_t r = 0; r < m->mesh->expert; r++) {
        m->bytes_out[r] = m->rows_out[r] * t->row_bytes;
        m->bytes_in[r] = m->rows_in[r] * t->row_bytes;
    }
    return t->comm->ops->all_to_all_v(t->comm, t->from, t->back ? m->bytes_in : m->bytes_out, t->to,
                                      t->back ? m->bytes_out : m->bytes_in, err);
}

/* ---- there */

static void send(const struct ctx *c, struct moe *m, struct mat rows, bool counts)
{
    m->transfer = (struct transfer){.comm = c->comm,
                                    .from = rows.data,
                                    .to = m->arrived.data,
                                    .row_bytes = rows.cols * sizeof(float),
                                    .counts = counts};
    overlap_start(c->beside, carry, m);
}

/* What arrived, merged. */
static void merge(const struct ctx *c, struct moe *m, enum op_format format, struct mat merged)
{
    struct mat arrived = codes_in(m->arrived, format, merged);
    if (format == OP_F32) {
        c->op->gather(arrived, m->from, merged);
        return;
    }
    struct mat codes = codes_in(m->packed, format, merged);
    c->op->gather(arrived, m->from, codes);
    c->op->unpack(format, codes, merged);
}

void exchange_tokens(const struct ctx *c, struct moe *m, struct mat x)
{
    struct mat codes = packed(c, m->packed, there(c, true), x);
    struct mat sorted = mat_of(m->sorted.data, x.rows * m->top_k, codes.cols);
    c->op->gather(codes, m->token, sorted);
    send(c, m, sorted, true);
}

int exchange_tokens_arrived(const struct ctx *c, struct moe *m, size_t *rows, struct err *err)
{
    TRY(overlap_wait(c->beside, err));
    *rows = m->offset[m->local];
    c->op->copy_from_host(m->from, m->host_from, *rows * sizeof *m->from);
    c->op->copy_from_host(m->to, m->host_to, *rows * sizeof *m->to);
    merge(c, m, there(c, true), mat_rows(m->x_rows.full, 0, *rows));
    return 0;
}

void exchange_gradients(const struct ctx *c, struct moe *m, struct mat sorted)
{
    send(c, m, packed(c, m->sorted, there(c, false), sorted), false);
}

int exchange_gradients_arrived(const struct ctx *c, struct moe *m, struct mat merged,
                               struct err *err)
{
    TRY(overlap_wait(c->beside, err));
    merge(c, m, there(c, false), merged);
    return 0;
}

/* ---- and back */

void exchange_return(const struct ctx *c, struct moe *m, struct mat merged, struct mat sorted,
                     bool forward)
{
    enum op_format format = back(c, forward);
    struct mat codes = packed(c, m->packed, format, merged);
    c->op->gather(codes, m->to, codes_in(m->arrived, format, merged));
    m->transfer = (struct transfer){.comm = c->comm,
                                    .from = m->arrived.data,
                                    .to = format == OP_F32 ? sorted.data : m->sorted.data,
                                    .row_bytes = codes.cols * sizeof(float),
                                    .back = true};
    overlap_start(c->beside, carry, m);
}

int exchange_returned(const struct ctx *c, struct moe *m, struct mat sorted, bool forward,
                      struct err *err)
{
    enum op_format format = back(c, forward);
    TRY(overlap_wait(c->beside, err));
    if (format != OP_F32) {
        c->op->unpack(format, codes_in(m->sorted, format, sorted), sorted);
    }
    return 0;
}
