/* Multi-head latent attention (reference report §2.1.1; names after the published implementation).
 *
 *   latent = x [W_qa; W_kva]^T = [c_q | c_kv | k_rope]
 *   q = norm(c_q) W_qb^T, per head [nope | rope];  [k_nope | v] per head = norm(c_kv) W_kvb^T
 *   q_rope, k_rope rotated; k = [k_nope | k_rope], k_rope shared by the heads
 *   y = attention(q, k, v) W_o^T
 *
 * Without query compression the first columns of `latent` are q itself. */
#include "trainer/layer.h"

struct dims {
    size_t heads, nope, rope, v, qk, q_rank, kv_rank;
    size_t q_cols; /* columns of latent in front of c_kv */
};

static struct dims dims_of(const struct model_config *c)
{
    size_t qk = c->qk_nope_head_dim + c->qk_rope_head_dim;
    return (struct dims){
        .heads = c->num_attention_heads,
        .nope = c->qk_nope_head_dim,
        .rope = c->qk_rope_head_dim,
        .v = c->v_head_dim,
        .qk = qk,
        .q_rank = c->q_lora_rank,
        .kv_rank = c->kv_lora_rank,
        .q_cols = c->q_lora_rank > 0 ? c->q_lora_rank : c->num_attention_heads * qk,
    };
}

static void build_params(struct mla *m, struct builder *b, const char *prefix)
{
    const struct model_config *c = b->config;
    struct params *p = b->params;
    struct dims d = dims_of(c);
    uint32_t heads = c->num_attention_heads, q_rows = heads * (uint32_t)d.qk;
    m->a = m->q_b = m->kv_b = m->o = (struct linear){0};
    params_align(p);
    if (c->q_lora_rank > 0) {
        params_linear(p, &m->a, LINEAR_RECIPE, -1, prefix, "q_a_proj.weight", c->q_lora_rank,
                      c->hidden_size);
    } else {
        params_linear(p, &m->a, LINEAR_RECIPE, -1, prefix, "q_proj.weight", q_rows, c->hidden_size);
    }
    params_linear(p, &m->a, LINEAR_RECIPE, -1, prefix, "kv_a_proj_with_mqa.weight",
                  c->kv_lora_rank + c->qk_rope_head_dim, c->hidden_size);
    if (c->q_lora_rank > 0) {
        params_vector(p, &m->q_norm, prefix, "q_a_layernorm.weight", c->q_lora_rank);
        params_align(p);
        params_linear(p, &m->q_b, LINEAR_RECIPE, -1, prefix, "q_b_proj.weight", q_rows,
                      c->q_lora_rank);
    }
    params_vector(p, &m->kv_norm, prefix, "kv_a_layernorm.weight", c->kv_lora_rank);
    params_align(p);
    params_linear(p, &m->kv_b, LINEAR_RECIPE, -1, prefix, "kv_b_proj.weight",
                  heads * (c->qk_nope_head_dim + c->v_head_dim), c->kv_lora_rank);
    params_align(p);
    params_linear(p, &m->o, LINEAR_RECIPE, -1, prefix, "o_proj.weight", c->hidden_size,
                  heads * c->v_head_dim);
    m->o.x_pow2 = b->recipe.attention_output == RECIPE_CACHE_E5M6;
}

/* Also of the counting pass's matrices, which have no memory. */
static struct mat first_cols(struct mat m, size_t cols)
{
    m.cols = cols;
    return m;
}

static enum op_format output_format(const struct recipe *r)
{
    if (r->attention_output == RECIPE_CACHE_E5M6) {
        return OP_E5M6_ROW;
    }
    return recipe_stored(r, (enum precision)r->attention_output, RECIPE_SCALE_EXACT);
}

void mla_build(struct mla *m, struct builder *b, const char *prefix)
{
    build_params(m, b, prefix);
    struct dims d = dims_of(b->config);
    size_t rows = b->shape.rows, q = d.heads * d.qk, kv = d.heads * (d.nope + d.v);
    struct arena *keep = b->keep, *scratch = b->scratch;
    m->latent = arena_mat(keep, rows, m->a.n);
    struct arena *normed = b->recipe.recompute_norm ? scratch : keep;
    struct arena *expanded = b->recipe.recompute_mla_up ? scratch : keep;
    m->kv_in = arena_mat(normed, rows, d.kv_rank);
    m->kv_rstd = arena_floats(keep, rows);
    m->q = first_cols(m->latent, q);
    if (d.q_rank > 0) {
        m->q_in = arena_mat(normed, rows, d.q_rank);
        m->q_rstd = arena_floats(keep, rows);
        m->q = arena_mat(expanded, rows, q);
        linear_reserve(b, &m->q_b, rows);
    }
    m->k = arena_mat(expanded, rows, q);
    m->kv = arena_mat(expanded, rows, kv);
    kept_build(&m->out, b, output_format(&b->recipe), 1, rows, d.heads * d.v);
    m->lse = arena_floats(keep, rows * d.heads);

    m->dout = arena_mat(scratch, rows, d.heads * d.v);
    m->dlatent = arena_mat(scratch, rows, m->a.n);
    m->dq = d.q_rank > 0 ? arena_mat(scratch, rows, q) : first_cols(m->dlatent, q);
    m->dk = arena_mat(scratch, rows, q);
    m->dkv = arena_mat(scratch, rows, kv);
    m->dnormed = arena_mat(scratch, rows, d.q_rank > d.kv_rank ? d.q_rank : d.kv_rank);
    struct op_attention largest = {
        .batch = b->shape.batch, .seq = b->shape.seq, .heads = d.heads, .qk = d.qk, .v = d.v};
    m->attention = arena_floats(scratch, b->op->attention_scratch(&largest));
    linear_reserve(b, &m->a, rows);
    linear_reserve(b, &m->kv_b, rows);
    linear_reserve(b, &m->o, rows);
}

static struct op_heads heads_of(struct mat m, size_t head_cols, size_t first)
{
    return (struct op_heads){m.data + first, m.ld, head_cols};
}

static struct op_attention attention_of(const struct ctx *c, struct shape s, const struct dims *d)
{
    return (struct op_attention){.batch = s.batch,
                                 .seq = s.seq,
                                 .heads = d->heads,
                                 .qk = d->qk,
                                 .v = d->v,
                                 .scale = c->softmax_scale,
                                 .bf16 = c->recipe.rest == PRECISION_BF16};
}

/* The released models leave rms_norm_eps out of these two norms. */
#define LATENT_EPS 1e-6f

/* The two latents normed, as kept. */
static void norm_latents(const struct ctx *c, struct mla *m, const struct dims *d, size_t rows)
{
    size_t offset[2];
    struct op_groups all = one_group(rows, offset);
    struct mat latent = mat_rows(m->latent, 0, rows), in = mat_rows(m->kv_in, 0, rows);
    c->op->rmsnorm(mat_cols(latent, d->q_cols, d->kv_rank), m->kv_norm.w, LATENT_EPS, in,
                   m->kv_rstd);
    store(c, in);
    linear_keep(c, &m->kv_b, all, in);
    if (d->q_rank > 0) {
        in = mat_rows(m->q_in, 0, rows);
        c->op->rmsnorm(mat_cols(latent, 0, d->q_rank), m->q_norm.w, LATENT_EPS, in, m->q_rstd);
        store(c, in);
        linear_keep(c, &m->q_b, all, in);
    }
}

/* in: as kept. */
static void expand(const struct ctx *c, const struct linear *l, struct mat in, struct mat y)
{
    size_t offset[2];
    struct op_groups all = one_group(in.rows, offset);
    linear_forward(c, l, all, linear_kept_operand(c, l, all, in), y);
    store(c, y);
}

/* q, k and v of all heads from the latents, whose rotary key is rotated. */
static void up_project(const struct ctx *c, struct mla *m, const struct dims *d, struct shape s)
{
    size_t rows = s.rows;
    struct mat q = mat_rows(m->q, 0, rows), k = mat_rows(m->k, 0, rows);
    struct mat kv = mat_rows(m->kv, 0, rows);
    struct mat k_rope = mat_cols(mat_rows(m->latent, 0, rows), d->q_cols + d->kv_rank, d->rope);
    expand(c, &m->kv_b, mat_rows(m->kv_in, 0, rows), kv);
    c->op->keys(heads_of(kv, d->nope + d->v, 0), d->nope, k_rope, d->heads, heads_of(k, d->qk, 0));
    store(c, k);
    if (d->q_rank > 0) {
        expand(c, &m->q_b, mat_rows(m->q_in, 0, rows), q);
        c->op->rope(heads_of(q, d->qk, d->nope), rows, s.seq, d->heads, d->rope, c->rope, false);
        store(c, q);
    }
}

/* The attention's output as the backward pass will have it. */
static void keep_output(const struct ctx *c, struct mat out)
{
    const struct op_groups none = {0};
    if (c->recipe.attention_output == RECIPE_CACHE_E5M6) {
        c->op->quantise(OP_E5M6_ROW, none, out, out);
    } else {
        store_as(c, (enum precision)c->recipe.attention_output, RECIPE_SCALE_EXACT, out, out);
    }
}

void mla_forward(const struct ctx *c, struct mla *m, struct shape s, struct mat x, struct mat y)
{
    struct dims d = dims_of(c->config);
    size_t offset[2], rows = s.rows;
    struct op_groups all = one_group(rows, offset);
    struct mat latent = mat_rows(m->latent, 0, rows), q = mat_rows(m->q, 0, rows);
    struct mat k = mat_rows(m->k, 0, rows), kv = mat_rows(m->kv, 0, rows);
    struct mat k_rope = mat_cols(latent, d.q_cols + d.kv_rank, d.rope);
    linear_forward(c, &m->a, all, linear_operand(c, &m->a, all, x), latent);
    store(c, latent);
    c->op->rope(heads_of(k_rope, 0, 0), rows, s.seq, 1, d.rope, c->rope, false);
    if (d.q_rank == 0) { /* q is in latent */
        c->op->rope(heads_of(q, d.qk, d.nope), rows, s.seq, d.heads, d.rope, c->rope, false);
        store(c, q);
    }
    norm_latents(c, m, &d, rows);
    up_project(c, m, &d, s);

    struct op_attention a = attention_of(c, s, &d);
    struct mat out = mat_rows(m->out.full, 0, rows), operand = out;
    c->op->attention(&a, heads_of(q, d.qk, 0), heads_of(k, d.qk, 0),
                     heads_of(kv, d.nope + d.v, d.nope), heads_of(out, d.v, 0), m->lse,
                     m->attention);
    store(c, out);
    if (linear_rounds_input(&c->recipe, &m->o)) {
        operand = mat_of(c->operand_x, rows, out.cols);
        linear_round(c, &m->o, all, out, operand);
    }
    linear_forward(c, &m->o, all, operand, y);
    store(c, y);
    keep_output(c, out);
    kept_pack(c, &m->out, rows);
}

static void up_project_backward(const struct ctx *c, const struct linear *l,
                                const struct vector *norm, struct mat latent, struct mat in,
                                const float *rstd, struct mat dy, struct mat dnormed,
                                struct mat dlatent)
{
    size_t offset[2];
    struct op_groups all = one_group(latent.rows, offset);
    linear_backward_input(c, l, all, dy, dnormed, false);
    linear_backward_weight(c, l, all, dy, in);
    c->op->rmsnorm_backward(latent, norm->w, rstd, dnormed, dlatent, false, c->grad_scale,
                            norm->grad);
}

void mla_backward(const struct ctx *c, struct mla *m, struct shape s, struct mat x, struct mat dy,
                  struct mat dx)
{
    struct dims d = dims_of(c->config);
    size_t offset[2], rows = s.rows;
    struct op_groups all = one_group(rows, offset);
    struct mat latent = mat_rows(m->latent, 0, rows), dlatent = mat_rows(m->dlatent, 0, rows);
    struct mat q = mat_rows(m->q, 0, rows), dq = mat_rows(m->dq, 0, rows);
    struct mat k = mat_rows(m->k, 0, rows), dk = mat_rows(m->dk, 0, rows);
    struct mat kv = mat_rows(m->kv, 0, rows), dkv = mat_rows(m->dkv, 0, rows);
    struct mat out = kept_unpack(c, &m->out, rows), dout = mat_rows(m->dout, 0, rows);
    struct mat dk_rope = mat_cols(dlatent, d.q_cols + d.kv_rank, d.rope);
    if (c->recipe.recompute_norm) {
        norm_latents(c, m, &d, rows);
    }
    if (c->recipe.recompute_mla_up) {
        up_project(c, m, &d, s);
    }
    linear_backward_input(c, &m->o, all, dy, dout, false);
    linear_backward_weight(c, &m->o, all, dy, out);

    struct op_attention a = attention_of(c, s, &d);
    if (a.bf16) {
        store(c, dout); /* it enters products inside */
    }
    c->op->attention_backward(&a, heads_of(q, d.qk, 0), heads_of(k, d.qk, 0),
                              heads_of(kv, d.nope + d.v, d.nope), heads_of(out, d.v, 0), m->lse,
                              heads_of(dout, d.v, 0), heads_of(dq, d.qk, 0), heads_of(dk, d.qk, 0),
                              heads_of(dkv, d.nope + d.v, d.nope), m->attention);
    c->op->keys_backward(heads_of(dk, d.qk, 0), d.heads, heads_of(dkv, d.nope + d.v, 0), d.nope,
                         dk_rope);
    c->op->rope(heads_of(dk_rope, 0, 0), rows, s.seq, 1, d.rope, c->rope, true);
    c->op->rope(heads_of(dq, d.qk, d.nope), rows, s.seq, d.heads, d.rope, c->rope, true);

    up_project_backward(c, &m->kv_b, &m->kv_norm, mat_cols(latent, d.q_cols, d.kv_rank),
                        mat_rows(m->kv_in, 0, rows), m->kv_rstd, dkv,
                        mat_of(m->dnormed.data, rows, d.kv_rank),
                        mat_cols(dlatent, d.q_cols, d.kv_rank));
    if (d.q_rank > 0) {
        up_project_backward(
            c, &m->q_b, &m->q_norm, mat_cols(latent, 0, d.q_rank), mat_rows(m->q_in, 0, rows),
            m->q_rstd, dq, mat_of(m->dnormed.data, rows, d.q_rank), mat_cols(dlatent, 0, d.q_rank));
    }
    linear_backward_input(c, &m->a, all, dlatent, dx, false);
    linear_backward_weight(c, &m->a, all, dlatent, x);
}
