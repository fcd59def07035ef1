#include "trainer/decode_layer.h"

#include <string.h>

static void ffn(const struct decode_ffn *f, struct decode_scratch *s, struct mat x, struct mat y)
{
    struct mat gate_up = mat_of(s->gate_up.data, x.rows, 2 * f->width);
    struct mat act = mat_of(s->act.data, x.rows, f->width);
    const struct product both[2] = {{x, f->gate, mat_cols(gate_up, 0, f->width)},
                                    {x, f->up, mat_cols(gate_up, f->width, f->width)}};
    decode_products(both, 2);
    s->op->swiglu(gate_up, act);
    decode_linear(act, f->down, y);
}

struct chosen {
    size_t slots, in, out; /* so far: rows of slot_x; products into and out of the hidden width */
    struct product *down;  /* those out; those in are in scratch->products */
    struct mat gate_up, act;
};

/* The rows that chose an expert, one after the other, so that its weights are read once. */
static void gather(struct chosen *c, const struct decode_layer *l, struct decode_scratch *s,
                   struct mat x, int32_t e)
{
    size_t top_k = s->config->num_experts_per_tok, width = l->expert[e].width, first = c->slots;
    for (size_t p = 0; p < x.rows * top_k; p++) {
        if (s->expert[p] == e) { /* a row has an expert once at most */
            memcpy(s->slot_x.data + c->slots * x.cols, x.data + p / top_k * x.ld,
                   x.cols * sizeof *x.data);
            s->slot_of[p] = c->slots++;
        }
    }
    size_t n = c->slots - first;
    if (n > 0) {
        struct mat in = mat_rows(s->slot_x, first, n), gate_up = mat_rows(c->gate_up, first, n);
        s->products[c->in++] = (struct product){in, l->expert[e].gate, mat_cols(gate_up, 0, width)};
        s->products[c->in++] =
            (struct product){in, l->expert[e].up, mat_cols(gate_up, width, width)};
        c->down[c->out++] = (struct product){mat_rows(c->act, first, n), l->expert[e].down,
                                             mat_rows(s->slot, first, n)};
    }
}

/* All chosen experts and the shared ones side by side: few products are large enough to be worth
 * waking another thread, all of them together are. */
static void run_experts(struct decode_layer *l, struct decode_scratch *s, struct mat x,
                        struct mat y)
{
    size_t pairs = x.rows * s->config->num_experts_per_tok, shared = l->ffn.width;
    size_t width = s->config->moe_intermediate_size;
    struct mat gate_up = mat_of(s->gate_up.data, x.rows, 2 * shared);
    struct mat act = mat_of(s->act.data, x.rows, shared);
    struct chosen c = {.down = s->products + 2 * (pairs + 1),
                       .gate_up = mat_of(s->slot_gate_up.data, pairs, 2 * width),
                       .act = mat_of(s->slot_act.data, pairs, width)};
    for (int32_t e = 0; e < (int32_t)s->config->n_routed_experts && c.slots < pairs; e++) {
        gather(&c, l, s, x, e);
    }
    if (shared > 0) {
        s->products[c.in++] = (struct product){x, l->ffn.gate, mat_cols(gate_up, 0, shared)};
        s->products[c.in++] = (struct product){x, l->ffn.up, mat_cols(gate_up, shared, shared)};
        c.down[c.out++] = (struct product){act, l->ffn.down, y};
    } else {
        s->op->zero(y);
    }
    decode_products(s->products, c.in);
    s->op->swiglu(c.gate_up, c.act);
    if (shared > 0) {
        s->op->swiglu(gate_up, act);
    }
    decode_products(c.down, c.out);
}

static void moe(struct decode_layer *l, struct decode_scratch *s, struct mat x)
{
    const struct model_config *c = s->config;
    const struct op_router spec = {.experts = c->n_routed_experts,
                                   .top_k = c->num_experts_per_tok,
                                   .groups = c->n_group,
                                   .top_groups = c->topk_group,
                                   .normalise = c->norm_topk_prob,
                                   .scale = (float)c->routed_scaling_factor};
    struct mat logits = mat_rows(s->logits, 0, x.rows), scores = mat_rows(s->scores, 0, x.rows);
    struct mat y = mat_rows(s->y, 0, x.rows);
    decode_linear(x, l->gate, logits);
    s->op->router(&spec, logits, l->bias, scores, s->expert, s->weight);
    run_experts(l, s, x, y);
    for (size_t p = 0; p < x.rows * spec.top_k; p++) {
        const float *from = s->slot.data + s->slot_of[p] * s->slot.ld;
        float *to = y.data + p / spec.top_k * y.ld;
        for (size_t i = 0; i < y.cols; i++) {
            to[i] += s->weight[p] * from[i];
        }
    }
}

void decode_layer_remember(struct decode_layer *l, struct decode_scratch *s, struct mat x,
                           size_t first)
{
    struct mat normed = mat_rows(s->normed, 0, x.rows);
    s->op->rmsnorm(x, l->input_norm, (float)s->config->rms_norm_eps, normed, s->rstd);
    decode_attention_remember(l, s, normed, first);
}

void decode_layer_forward(struct decode_layer *l, struct decode_scratch *s, struct mat x,
                          size_t first)
{
    float eps = (float)s->config->rms_norm_eps;
    struct mat normed = mat_rows(s->normed, 0, x.rows), y = mat_rows(s->y, 0, x.rows);
    s->op->rmsnorm(x, l->input_norm, eps, normed, s->rstd);
    decode_attention(l, s, normed, first, y);
    s->op->add(x, y, x);
    s->op->rmsnorm(x, l->post_norm, eps, normed, s->rstd);
    if (l->is_moe) {
        moe(l, s, normed);
    } else {
        ffn(&l->ffn, s, normed, y);
    }
    s->op->add(x, y, x);
}
