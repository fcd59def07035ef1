#include "trainer/decode_layer.h"

#include <string.h>

static void ffn(const struct decode_ffn *f, struct decode_scratch *s, struct mat x, struct mat y)
{
    struct mat gate_up = mat_of(s->gate_up.data, x.rows, 2 * f->width);
    struct mat act = mat_of(s->act.data, x.rows, f->width);
    decode_linear(x, f->gate, mat_cols(gate_up, 0, f->width));
    decode_linear(x, f->up, mat_cols(gate_up, f->width, f->width));
    s->op->swiglu(gate_up, act);
    decode_linear(act, f->down, y);
}

/* All rows that chose an expert at once, so that its weights are read once. */
static void run_expert(struct decode_layer *l, struct decode_scratch *s, struct mat x, size_t e)
{
    size_t top_k = s->config->num_experts_per_tok, n = 0, pair[DECODE_ROWS], bytes;
    bytes = x.cols * sizeof(float);
    for (size_t p = 0; p < x.rows * top_k; p++) {
        if ((size_t)s->expert[p] == e) { /* a row has an expert once at most */
            memcpy(s->x_in.data + n * x.cols, x.data + p / top_k * x.ld, bytes);
            pair[n++] = p;
        }
    }
    if (n == 0) {
        return;
    }
    struct mat y = mat_rows(s->y, 0, n);
    ffn(&l->expert[e], s, mat_rows(s->x_in, 0, n), y);
    for (size_t i = 0; i < n; i++) {
        memcpy(s->slot.data + pair[i] * s->slot.ld, y.data + i * y.ld, bytes);
    }
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
    for (size_t e = 0; e < spec.experts; e++) {
        run_expert(l, s, x, e);
    }
    if (l->ffn.width > 0) {
        ffn(&l->ffn, s, x, y);
    } else {
        s->op->zero(y);
    }
    for (size_t p = 0; p < x.rows * spec.top_k; p++) {
        const float *from = s->slot.data + p * s->slot.ld;
        float *to = y.data + p / spec.top_k * y.ld;
        for (size_t i = 0; i < y.cols; i++) {
            to[i] += s->weight[p] * from[i];
        }
    }
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
