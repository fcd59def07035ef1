/* Mixture of experts: y = shared(x) + sum over the chosen experts of weight * expert(x).
 *
 * The pairs (token, slot) of this rank are sorted by expert. With one rank that is the order in
 * which the experts work. With more, rows travel to the expert's rank and back by all-to-all, row
 * counts first, and are merged there in the order (expert, source rank, token): which does not
 * depend on who arrives first, and is the order one rank with all tokens would use. No token is
 * dropped; memory is set aside for all tokens of the group choosing this rank's experts (untouched
 * pages cost nothing on the CPU). */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "trainer/layer.h"
#include "trainer/route.h"

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void build_memory(struct moe *m, struct builder *b)
{
    const struct model_config *c = b->config;
    struct arena *keep = b->keep, *scratch = b->scratch, *host = b->host;
    size_t rows = b->shape.rows, pairs = rows * m->top_k, ranks = b->mesh->expert;
    size_t hidden = c->hidden_size, experts = m->experts;
    size_t most = ranks * rows * smaller(m->top_k, m->local);
    m->bias = arena_floats(keep, experts);
    m->weight = arena_floats(keep, pairs);
    size_t sequences = b->sequences > 0 ? b->sequences : b->shape.batch;
    m->fraction = arena_floats(keep, sequences * experts);
    m->expert = arena_take(keep, pairs * sizeof *m->expert);
    m->scores = arena_mat(keep, rows, experts);
    m->place = arena_take(keep, pairs * sizeof *m->place);
    struct arena *normed = b->recipe.recompute_norm ? scratch : keep;
    m->outgoing = m->shared_in = (struct mat){0};
    if (recipe_rounds(&b->recipe, b->recipe.dispatch)) {
        m->outgoing = arena_mat(normed, rows, hidden);
    }
    if (m->shared_from == SHARED_OWN) {
        m->shared_in = arena_mat(normed, rows, hidden);
    }
    m->x_rows = arena_mat(keep, most, hidden);
    m->y_rows = arena_mat(keep, pairs, hidden);

    m->logits = arena_mat(scratch, rows, experts);
    m->token = arena_take(scratch, pairs * sizeof *m->token);
    m->dweight = arena_floats(scratch, pairs);
    m->loss = arena_floats(scratch, sequences);
    m->dx_rows = arena_mat(scratch, most, hidden);

    m->host_expert = arena_take(host, pairs * sizeof *m->host_expert);
    m->host_place = arena_take(host, pairs * sizeof *m->host_place);
    m->host_token = arena_take(host, pairs * sizeof *m->host_token);
    m->sent = arena_take(host, experts * sizeof *m->sent);
    m->offset = arena_take(host, (m->local + 1) * sizeof *m->offset);
    if (ranks > 1) {
        m->sorted = arena_mat(scratch, pairs, hidden);
        m->arrived = arena_mat(scratch, most, hidden);
        m->merged = arena_mat(scratch, most, hidden);
        m->from = arena_take(keep, most * sizeof *m->from);
        m->to = arena_take(keep, most * sizeof *m->to);
        m->host_from = arena_take(host, most * sizeof *m->host_from);
        m->host_to = arena_take(host, most * sizeof *m->host_to);
        m->received = arena_take(host, ranks * m->local * sizeof *m->received);
        m->bytes_out = arena_take(host, ranks * sizeof *m->bytes_out);
        m->bytes_in = arena_take(host, ranks * sizeof *m->bytes_in);
    }
}

/* The shared experts take what is dispatched where that is their operand too. */
static enum shared_source shared_source(bool has_shared, const struct recipe *r)
{
    if (has_shared && recipe_sends_operand(r, r->fprop, r->x_tile)) {
        return SHARED_SENT;
    }
    return has_shared && recipe_rounds(r, r->fprop) ? SHARED_OWN : SHARED_STORED;
}

/* What the products need not round themselves, and which scales Wgrad takes for it. */
static void mark_operands(struct moe *m, const struct recipe *r)
{
    bool pow2 = r->dispatch == PRECISION_FP8 && r->dispatch_scale == RECIPE_SCALE_POW2;
    m->routed.x_is_operand = recipe_sends_operand(r, r->fprop, r->x_tile);
    m->routed.gate_up.x_pow2 = pow2;
    m->routed.down.dy_is_operand = recipe_sends_operand(r, r->dgrad, r->dy_tile);
    m->routed.down.dy_pow2 = pow2;
    m->shared.x_is_operand = m->shared_from == SHARED_SENT;
    m->shared.gate_up.x_pow2 = pow2 && m->shared_from == SHARED_SENT;
}

void moe_build(struct moe *m, struct builder *b, const char *prefix, struct router *router)
{
    const struct model_config *c = b->config;
    char name[sizeof((struct param *)0)->name];
    uint32_t first, local;
    mesh_expert_range(b->mesh, c->n_routed_experts, b->mesh->expert_index, &first, &local);
    m->mesh = b->mesh;
    m->router = router;
    m->experts = c->n_routed_experts;
    m->local = local;
    m->top_k = c->num_experts_per_tok;
    m->spec = (struct op_router){.experts = c->n_routed_experts,
                                 .top_k = c->num_experts_per_tok,
                                 .groups = c->n_group,
                                 .top_groups = c->topk_group,
                                 .normalise = c->norm_topk_prob,
                                 .scale = (float)c->routed_scaling_factor};
    m->gate = (struct linear){0};
    params_align(b->params);
    params_linear(b->params, &m->gate, LINEAR_GATE, -1, prefix, "gate.weight", c->n_routed_experts,
                  c->hidden_size);
    linear_reserve(b, &m->gate, b->shape.rows);
    m->has_shared = c->n_shared_experts > 0;
    m->shared_from = shared_source(m->has_shared, &b->recipe);
    build_memory(m, b);
    if (m->has_shared) {
        snprintf(name, sizeof name, "%sshared_experts.", prefix);
        ffn_build(&m->shared, b, name, b->shape.rows,
                  c->moe_intermediate_size * c->n_shared_experts, 0, 0);
    }
    snprintf(name, sizeof name, "%sexperts.", prefix);
    ffn_build(&m->routed, b, name, m->x_rows.rows, c->moe_intermediate_size, first, local);
    mark_operands(m, &b->recipe);
}

/* ---- moving rows between the ranks of the tokens and those of the experts */

static size_t group_ranks(const struct moe *m)
{
    return m->mesh->expert;
}

/* Tells every rank how many rows it gets for each of its experts; works out where arriving rows
 * belong. Returns through *rows how many there are. */
static int exchange_counts(struct ctx *c, struct moe *m, size_t *rows, struct err *err)
{
    size_t ranks = group_ranks(m);
    if (ranks == 1) {
        m->offset[0] = 0;
        for (size_t e = 0; e < m->local; e++) {
            m->offset[e + 1] = m->offset[e] + m->sent[e];
        }
        *rows = m->offset[m->local];
        return 0;
    }
    for (uint32_t r = 0; r < ranks; r++) {
        uint32_t first, count;
        mesh_expert_range(m->mesh, m->experts, r, &first, &count);
        m->bytes_out[r] = count * sizeof *m->sent;
        m->bytes_in[r] = m->local * sizeof *m->received;
    }
    TRY(c->comm->ops->all_to_all_v(c->comm, m->sent, m->bytes_out, m->received, m->bytes_in, err));
    *rows = route_merge(m->received, ranks, m->local, m->offset, m->host_from, m->host_to);
    assert(*rows <= m->x_rows.rows);
    c->op->copy_from_host(m->from, m->host_from, *rows * sizeof *m->from);
    c->op->copy_from_host(m->to, m->host_to, *rows * sizeof *m->to);
    for (uint32_t r = 0; r < ranks; r++) {
        uint32_t first, count;
        mesh_expert_range(m->mesh, m->experts, r, &first, &count);
        size_t out = 0, in = 0, row_bytes = m->x_rows.cols * sizeof(float);
        for (uint32_t e = 0; e < count; e++) {
            out += m->sent[first + e];
        }
        for (uint32_t e = 0; e < m->local; e++) {
            in += m->received[r * m->local + e];
        }
        m->bytes_out[r] = out * row_bytes;
        m->bytes_in[r] = in * row_bytes;
    }
    return 0;
}

/* sorted rows here -> merged rows at the experts */
static int dispatch(struct ctx *c, struct moe *m, struct mat sorted, struct mat merged,
                    struct err *err)
{
    struct mat arrived = mat_rows(m->arrived, 0, merged.rows);
    TRY(c->comm->ops->all_to_all_v(c->comm, sorted.data, m->bytes_out, arrived.data, m->bytes_in,
                                   err));
    c->op->gather(arrived, m->from, merged);
    return 0;
}

/* merged rows at the experts -> sorted rows here */
static int collect(struct ctx *c, struct moe *m, struct mat merged, struct mat sorted,
                   struct err *err)
{
    struct mat arrived = mat_rows(m->arrived, 0, merged.rows);
    c->op->gather(merged, m->to, arrived);
    return c->comm->ops->all_to_all_v(c->comm, arrived.data, m->bytes_in, sorted.data, m->bytes_out,
                                      err);
}

/* ---- the passes */

static void choose(struct ctx *c, struct moe *m, struct shape s, struct mat x)
{
    size_t offset[2], pairs = s.rows * m->top_k;
    struct mat logits = mat_rows(m->logits, 0, s.rows), scores = mat_rows(m->scores, 0, s.rows);
    linear_forward(c, &m->gate, one_group(s.rows, offset), x, logits);
    c->op->copy_from_host(m->bias, m->router->bias, m->experts * sizeof *m->bias);
    c->op->router(&m->spec, logits, m->bias, scores, m->expert, m->weight);
    if (c->balance_scale != 0) {
        c->op->balance(&m->spec, scores, s.seq, m->fraction, m->loss);
        c->balance += c->op->sum(m->loss, s.batch);
    }
    c->op->copy_to_host(m->host_expert, m->expert, pairs * sizeof *m->expert);
    route_sort(m->host_expert, pairs, m->top_k, m->experts, m->sent, m->host_place, m->host_token);
    c->op->copy_from_host(m->place, m->host_place, pairs * sizeof *m->place);
    c->op->copy_from_host(m->token, m->host_token, pairs * sizeof *m->token);
    for (size_t e = 0; c->count_load && e < m->experts; e++) {
        m->router->load[e] += m->sent[e];
    }
}

/* Rows on their way to experts, or their gradients. */
static void round_dispatch(const struct ctx *c, struct mat x, struct mat y)
{
    store_as(c, c->recipe.dispatch, c->recipe.dispatch_scale, x, y);
}

static void round_combine(const struct ctx *c, struct mat y)
{
    store_as(c, c->recipe.combine, RECIPE_SCALE_EXACT, y, y);
}

static struct mat outgoing_of(const struct moe *m, struct mat x)
{
    return m->outgoing.cols > 0 ? mat_rows(m->outgoing, 0, x.rows) : x;
}

/* What routed and shared experts take, from x as stored. */
static void fill_inputs(const struct ctx *c, struct moe *m, struct mat x)
{
    if (m->outgoing.cols > 0) {
        round_dispatch(c, x, outgoing_of(m, x));
    }
    if (m->shared_from == SHARED_OWN) {
        c->op->copy(x, mat_rows(m->shared_in, 0, x.rows));
    }
}

static struct mat shared_input(const struct moe *m, struct mat x)
{
    switch (m->shared_from) {
    case SHARED_SENT:
        return outgoing_of(m, x);
    case SHARED_OWN:
        return mat_rows(m->shared_in, 0, x.rows);
    case SHARED_STORED:
        break;
    }
    return x;
}

int moe_forward(struct ctx *c, struct moe *m, struct shape s, struct mat x, struct mat y,
                struct err *err)
{
    size_t offset[2], rows, pairs = s.rows * m->top_k;
    struct mat y_rows = mat_rows(m->y_rows, 0, pairs);
    struct op_groups local = {m->local, m->offset};
    choose(c, m, s, x);
    TRY(exchange_counts(c, m, &rows, err));
    fill_inputs(c, m, x);
    struct mat x_rows = mat_rows(m->x_rows, 0, rows);
    if (group_ranks(m) == 1) {
        c->op->gather(outgoing_of(m, x), m->token, x_rows);
        ffn_forward(c, &m->routed, local, x_rows, y_rows);
        round_combine(c, y_rows);
    } else {
        struct mat sorted = mat_rows(m->sorted, 0, pairs), merged = mat_rows(m->merged, 0, rows);
        c->op->gather(outgoing_of(m, x), m->token, sorted);
        TRY(dispatch(c, m, sorted, x_rows, err));
        ffn_forward(c, &m->routed, local, x_rows, merged);
        round_combine(c, merged);
        TRY(collect(c, m, merged, y_rows, err));
    }
    if (m->has_shared) {
        ffn_forward(c, &m->shared, one_group(s.rows, offset), shared_input(m, x), y);
    } else {
        c->op->zero(y);
    }
    c->op->combine(y_rows, m->place, m->weight, m->top_k, y);
    store(c, y);
    return 0;
}

static void gate_backward(struct ctx *c, struct moe *m, struct shape s, struct mat x, struct mat dx)
{
    size_t offset[2];
    struct op_groups all = one_group(s.rows, offset);
    struct mat scores = mat_rows(m->scores, 0, s.rows), dlogits = mat_rows(m->logits, 0, s.rows);
    c->op->router_backward(&m->spec, scores, m->expert, m->dweight, s.seq, c->balance_scale,
                           m->fraction, dlogits);
    linear_backward_input(c, &m->gate, all, dlogits, dx, true);
    linear_backward_weight(c, &m->gate, all, dlogits, x);
}

/* x is here again after its norm was recomputed: so must be what was made of it. */
static void refill_inputs(const struct ctx *c, struct moe *m, struct mat x)
{
    size_t offset[2];
    fill_inputs(c, m, x);
    if (m->shared_from == SHARED_OWN) {
        linear_keep(c, &m->shared.gate_up, one_group(x.rows, offset), shared_input(m, x));
    }
}

int moe_backward(struct ctx *c, struct moe *m, struct shape s, struct mat x, struct mat dy,
                 struct mat dx, struct err *err)
{
    size_t offset[2], pairs = s.rows * m->top_k, rows = m->offset[m->local];
    struct mat y_rows = mat_rows(m->y_rows, 0, pairs), x_rows = mat_rows(m->x_rows, 0, rows);
    struct op_groups local = {m->local, m->offset};
    if (c->recipe.recompute_norm) {
        refill_inputs(c, m, x);
    }
    if (m->has_shared) {
        ffn_backward(c, &m->shared, one_group(s.rows, offset), shared_input(m, x), dy, dx, false);
    } else {
        c->op->zero(dx);
    }
    c->op->combine_backward(dy, y_rows, m->place, m->weight, m->top_k, y_rows, m->dweight);
    round_dispatch(c, y_rows, y_rows);
    struct mat dx_sorted = mat_rows(m->dx_rows, 0, pairs);
    if (group_ranks(m) == 1) {
        ffn_backward(c, &m->routed, local, x_rows, y_rows, dx_sorted, false);
        round_combine(c, dx_sorted);
    } else {
        struct mat dy_rows = mat_rows(m->merged, 0, rows), dx_rows = mat_rows(m->dx_rows, 0, rows);
        dx_sorted = mat_rows(m->sorted, 0, pairs);
        TRY(dispatch(c, m, y_rows, dy_rows, err));
        ffn_backward(c, &m->routed, local, x_rows, dy_rows, dx_rows, false);
        round_combine(c, dx_rows);
        TRY(collect(c, m, dx_rows, dx_sorted, err));
    }
    c->op->combine(dx_sorted, m->place, NULL, m->top_k, dx);
    gate_backward(c, m, s, x, dx);
    return 0;
}
