/* Mixture of experts: y = shared(x) + sum over the chosen experts of weight * expert(x).
 *
 * The pairs (token, slot) of this rank are sorted by expert. With one rank that is the order in
 * which the experts work. With more, rows travel to the expert's rank and back by all-to-all
 * (layer_exchange.c), row counts first, and are merged there in the order (expert, source rank,
 * token): which does not depend on who arrives first, and is the order one rank with all tokens
 * would use. While they travel this rank computes what does not wait for them: the shared experts,
 * and gradients of weights. No token is dropped; memory is set aside for all tokens of the group
 * choosing this rank's experts (untouched pages cost nothing on the CPU). */
#include <stdio.h>
#include <string.h>

#include "trainer/layer.h"
#include "trainer/route.h"

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Rows that this rank's experts may get. */
static size_t rows_most(const struct moe *m, const struct builder *b)
{
    return b->mesh->expert * b->shape.rows * smaller(m->top_k, m->local);
}

static void build_memory(struct moe *m, struct builder *b)
{
    const struct model_config *c = b->config;
    struct arena *keep = b->keep, *scratch = b->scratch, *host = b->host;
    size_t rows = b->shape.rows, pairs = rows * m->top_k, ranks = b->mesh->expert;
    size_t hidden = c->hidden_size, experts = m->experts, most = rows_most(m, b);
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
    enum op_format back = recipe_stored(&b->recipe, b->recipe.combine, RECIPE_SCALE_EXACT);
    kept_build(&m->y_rows, b, back, 1, pairs, hidden);

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
        m->packed = arena_mat(scratch, most, hidden);
        m->from = arena_take(keep, most * sizeof *m->from);
        m->to = arena_take(keep, most * sizeof *m->to);
        m->host_from = arena_take(host, most * sizeof *m->host_from);
        m->host_to = arena_take(host, most * sizeof *m->host_to);
        m->received = arena_take(host, ranks * m->local * sizeof *m->received);
        m->rows_out = arena_take(host, ranks * sizeof *m->rows_out);
        m->rows_in = arena_take(host, ranks * sizeof *m->rows_in);
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

/* As kept for Wgrad. */
static enum op_format x_rows_format(const struct moe *m, const struct recipe *r)
{
    enum op_format arrived = recipe_stored(r, r->dispatch, r->dispatch_scale);
    return m->routed.x_is_operand ? arrived : linear_kept_format(r, &m->routed.gate_up, arrived);
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
    ffn_build(&m->routed, b, name, rows_most(m, b), c->moe_intermediate_size, first, local);
    mark_operands(m, &b->recipe);
    kept_build(&m->x_rows, b, x_rows_format(m, &b->recipe), 1, rows_most(m, b), c->hidden_size);
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

static void shared_forward(const struct ctx *c, struct moe *m, struct mat x, struct mat y)
{
    size_t offset[2];
    if (m->has_shared) {
        ffn_forward(c, &m->shared, one_group(x.rows, offset), shared_input(m, x), y);
    } else {
        c->op->zero(y);
    }
}

/* All experts here: y_rows. */
static void routed_forward(const struct ctx *c, struct moe *m, struct mat x, struct mat y_rows)
{
    m->offset[0] = 0;
    for (size_t e = 0; e < m->local; e++) {
        m->offset[e + 1] = m->offset[e] + m->sent[e];
    }
    struct mat x_rows = mat_rows(m->x_rows.full, 0, y_rows.rows);
    c->op->gather(outgoing_of(m, x), m->token, x_rows);
    ffn_forward(c, &m->routed, (struct op_groups){m->local, m->offset}, x_rows, y_rows);
    round_combine(c, y_rows);
}

int moe_forward(struct ctx *c, struct moe *m, struct shape s, struct mat x, struct mat y,
                struct err *err)
{
    struct mat y_rows = mat_rows(m->y_rows.full, 0, s.rows * m->top_k);
    choose(c, m, s, x);
    fill_inputs(c, m, x);
    if (m->mesh->expert == 1) {
        routed_forward(c, m, x, y_rows);
        shared_forward(c, m, x, y);
    } else {
        struct op_groups local = {m->local, m->offset};
        size_t rows;
        exchange_tokens(c, m, outgoing_of(m, x));
        shared_forward(c, m, x, y);
        TRY(exchange_tokens_arrived(c, m, &rows, err));
        struct mat merged = mat_rows(m->merged, 0, rows);
        ffn_forward(c, &m->routed, local, mat_rows(m->x_rows.full, 0, rows), merged);
        round_combine(c, merged);
        exchange_return(c, m, merged, y_rows, true);
        TRY(exchange_returned(c, m, y_rows, true, err));
    }
    c->op->combine(y_rows, m->place, m->weight, m->top_k, y);
    store(c, y);
    kept_pack(c, &m->x_rows, m->offset[m->local]);
    kept_pack(c, &m->y_rows, y_rows.rows);
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

static void shared_backward(const struct ctx *c, struct moe *m, struct mat x, struct mat dy,
                            struct mat dx)
{
    size_t offset[2];
    if (m->has_shared) {
        ffn_backward(c, &m->shared, one_group(x.rows, offset), shared_input(m, x), dy, dx, false);
    } else {
        c->op->zero(dx);
    }
}

int moe_backward(struct ctx *c, struct moe *m, struct shape s, struct mat x, struct mat dy,
                 struct mat dx, struct err *err)
{
    size_t pairs = s.rows * m->top_k, rows = m->offset[m->local];
    struct mat y_rows = kept_unpack(c, &m->y_rows, pairs),
               x_rows = kept_unpack(c, &m->x_rows, rows);
    struct mat dx_rows = mat_rows(m->dx_rows, 0, rows), dx_sorted = dx_rows;
    struct op_groups local = {m->local, m->offset};
    if (c->recipe.recompute_norm) {
        refill_inputs(c, m, x);
    }
    c->op->combine_backward(dy, y_rows, m->place, m->weight, m->top_k, y_rows, m->dweight);
    round_dispatch(c, y_rows, y_rows);
    if (m->mesh->expert == 1) {
        ffn_backward(c, &m->routed, local, x_rows, y_rows, dx_rows, false);
        round_combine(c, dx_rows);
        shared_backward(c, m, x, dy, dx);
    } else {
        struct mat dy_rows = mat_rows(m->merged, 0, rows);
        exchange_gradients(c, m, y_rows);
        shared_backward(c, m, x, dy, dx);
        TRY(exchange_gradients_arrived(c, m, dy_rows, err));
        ffn_backward_input(c, &m->routed, local, dy_rows, dx_rows, false);
        round_combine(c, dx_rows);
        dx_sorted = y_rows; /* whose gradient was sent */
        exchange_return(c, m, dx_rows, dx_sorted, false);
        ffn_backward_weight(c, &m->routed, local, x_rows, dy_rows);
        TRY(exchange_returned(c, m, dx_sorted, false, err));
    }
    c->op->combine(dx_sorted, m->place, NULL, m->top_k, dx);
    gate_backward(c, m, s, x, dx);
    return 0;
}
