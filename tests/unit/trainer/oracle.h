/* The model once more, for tests: in double precision, with plain loops straight from the formulas,
 * forward only, sharing no code with the trainer. Its numerical derivatives are what the
 * hand-written backward passes are held against. */
#ifndef TESTS_UNIT_TRAINER_ORACLE_H
#define TESTS_UNIT_TRAINER_ORACLE_H

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/model_config.h"

struct oracle_tensor {
    char name[128];
    uint64_t hash; /* of the name */
    size_t count;
    double *value; /* owned */
};

static inline uint64_t o_hash(const char *name)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *name != '\0'; name++) {
        h = (h ^ (unsigned char)*name) * 0x100000001b3u;
    }
    return h;
}

struct oracle {
    const struct model_config *c;
    size_t batch, seq;
    double alpha, lambda;
    struct oracle_tensor *tensor; /* weights and router biases */
    size_t tensors;
    /* results of the last pass */
    double loss, mtp_loss, balance; /* sums, as in struct model_losses */
    double *logits;                 /* [batch * seq, vocab], owned */
    double margin;                  /* how close the closest routing decision was */
    uint64_t choices;               /* a hash of all of them */
};

static inline double *o_new(size_t n)
{
    double *p = calloc(n > 0 ? n : 1, sizeof *p);
    assert(p != NULL);
    return p;
}

__attribute__((format(printf, 2, 3))) static inline double *o_weight(const struct oracle *o,
                                                                     const char *fmt, ...)
{
    char name[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    uint64_t hash = o_hash(name);
    for (size_t i = 0; i < o->tensors; i++) {
        if (o->tensor[i].hash == hash) {
            return o->tensor[i].value;
        }
    }
    fprintf(stderr, "oracle: no tensor %s\n", name);
    abort();
}

static inline void o_linear(const double *x, const double *w, size_t rows, size_t n, size_t k,
                            double *y)
{
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < n; i++) {
            double sum = 0;
            for (size_t j = 0; j < k; j++) {
                sum += x[r * k + j] * w[i * k + j];
            }
            y[r * n + i] = sum;
        }
    }
}

static inline void o_norm(const double *x, size_t stride, const double *w, double eps, size_t rows,
                          size_t n, double *y)
{
    for (size_t r = 0; r < rows; r++) {
        double sum = 0;
        for (size_t i = 0; i < n; i++) {
            sum += x[r * stride + i] * x[r * stride + i];
        }
        for (size_t i = 0; i < n; i++) {
            y[r * n + i] = x[r * stride + i] / sqrt(sum / (double)n + eps) * w[i];
        }
    }
}

static inline double o_mscale(double factor, double m)
{
    return factor <= 1 ? 1 : 0.1 * m * log(factor) + 1;
}

/* Rotates the adjacent pairs of x[dim] for a position. */
static inline void o_rope(const struct model_config *c, double *x, size_t position)
{
    double dim = c->qk_rope_head_dim;
    for (size_t i = 0; i < c->qk_rope_head_dim / 2; i++) {
        double f = pow(c->rope_theta, -2.0 * (double)i / dim), magnitude = 1;
        if (c->rope.yarn) {
            double context = c->rope.original_max_position_embeddings,
                   base = 2 * log(c->rope_theta);
            double low = floor(dim * log(context / (c->rope.beta_fast * 2 * M_PI)) / base);
            double high = ceil(dim * log(context / (c->rope.beta_slow * 2 * M_PI)) / base);
            low = low < 0 ? 0 : low;
            high = high > dim - 1 ? dim - 1 : high;
            high = high == low ? high + 0.001 : high;
            double ramp = ((double)i - low) / (high - low);
            ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
            f = f / c->rope.factor * ramp + f * (1 - ramp);
            magnitude = c->rope.mscale != 0 && c->rope.mscale_all_dim != 0
                            ? o_mscale(c->rope.factor, c->rope.mscale) /
                                  o_mscale(c->rope.factor, c->rope.mscale_all_dim)
                            : o_mscale(c->rope.factor, 1);
        }
        double angle = (double)position * f, even = x[2 * i], odd = x[2 * i + 1];
        x[2 * i] = magnitude * (even * cos(angle) - odd * sin(angle));
        x[2 * i + 1] = magnitude * (even * sin(angle) + odd * cos(angle));
    }
}

static inline void o_mla(const struct oracle *o, const char *p, size_t batch, size_t seq,
                         const double *x, double *y)
{
    const struct model_config *c = o->c;
    size_t heads = c->num_attention_heads, nope = c->qk_nope_head_dim, rope = c->qk_rope_head_dim;
    size_t v = c->v_head_dim, qk = nope + rope, rank = c->kv_lora_rank, h = c->hidden_size;
    size_t rows = batch * seq;
    double *q = o_new(rows * heads * qk), *kva = o_new(rows * (rank + rope));
    double *ckv = o_new(rows * rank), *kv = o_new(rows * heads * (nope + v));
    double *out = o_new(rows * heads * v), *score = o_new(seq);
    if (c->q_lora_rank > 0) {
        size_t r = c->q_lora_rank;
        double *cq = o_new(rows * r), *cqn = o_new(rows * r);
        o_linear(x, o_weight(o, "%sq_a_proj.weight", p), rows, r, h, cq);
        o_norm(cq, r, o_weight(o, "%sq_a_layernorm.weight", p), 1e-6, rows, r, cqn);
        o_linear(cqn, o_weight(o, "%sq_b_proj.weight", p), rows, heads * qk, r, q);
        free(cq);
        free(cqn);
    } else {
        o_linear(x, o_weight(o, "%sq_proj.weight", p), rows, heads * qk, h, q);
    }
    o_linear(x, o_weight(o, "%skv_a_proj_with_mqa.weight", p), rows, rank + rope, h, kva);
    o_norm(kva, rank + rope, o_weight(o, "%skv_a_layernorm.weight", p), 1e-6, rows, rank, ckv);
    o_linear(ckv, o_weight(o, "%skv_b_proj.weight", p), rows, heads * (nope + v), rank, kv);
    for (size_t t = 0; t < rows; t++) {
        o_rope(c, kva + t * (rank + rope) + rank, t % seq);
        for (size_t i = 0; i < heads; i++) {
            o_rope(c, q + (t * heads + i) * qk + nope, t % seq);
        }
    }
    double scale = 1 / sqrt((double)qk);
    if (c->rope.yarn && c->rope.mscale_all_dim != 0) {
        scale *= pow(o_mscale(c->rope.factor, c->rope.mscale_all_dim), 2);
    }
    for (size_t t = 0; t < rows; t++) {
        size_t start = t / seq * seq, n = t - start + 1;
        for (size_t i = 0; i < heads; i++) {
            double top = -INFINITY, sum = 0;
            for (size_t j = 0; j < n; j++) {
                const double *query = q + (t * heads + i) * qk;
                const double *key = kv + ((start + j) * heads + i) * (nope + v);
                const double *shared = kva + (start + j) * (rank + rope) + rank;
                double dot = 0;
                for (size_t e = 0; e < qk; e++) {
                    dot += query[e] * (e < nope ? key[e] : shared[e - nope]);
                }
                score[j] = dot * scale;
                top = fmax(top, score[j]);
            }
            for (size_t j = 0; j < n; j++) {
                sum += score[j] = exp(score[j] - top);
            }
            for (size_t j = 0; j < n; j++) {
                const double *value = kv + ((start + j) * heads + i) * (nope + v) + nope;
                for (size_t e = 0; e < v; e++) {
                    out[(t * heads + i) * v + e] += score[j] / sum * value[e];
                }
            }
        }
    }
    o_linear(out, o_weight(o, "%so_proj.weight", p), rows, h, heads * v, y);
    free(q), free(kva), free(ckv), free(kv), free(out), free(score);
}

/* y[t] += factor[t] * ffn(x[t]) where factor is not 0; NULL: 1 */
static inline void o_ffn(const struct oracle *o, const char *p, size_t width, size_t rows,
                         const double *x, const double *factor, double *y)
{
    size_t h = o->c->hidden_size;
    double *gate = o_new(width), *up = o_new(width), *out = o_new(h);
    const double *wg = o_weight(o, "%sgate_proj.weight", p),
                 *wu = o_weight(o, "%sup_proj.weight", p);
    const double *wd = o_weight(o, "%sdown_proj.weight", p);
    for (size_t t = 0; t < rows; t++) {
        if (factor != NULL && factor[t] == 0) {
            continue;
        }
        o_linear(x + t * h, wg, 1, width, h, gate);
        o_linear(x + t * h, wu, 1, width, h, up);
        for (size_t i = 0; i < width; i++) {
            gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
        }
        o_linear(gate, wd, 1, h, width, out);
        for (size_t i = 0; i < h; i++) {
            y[t * h + i] += (factor != NULL ? factor[t] : 1) * out[i];
        }
    }
    free(gate), free(up), free(out);
}

/* Marks the n largest of value[count]; the margin is the gap to the next one. */
static inline void o_top(const double *value, size_t count, size_t n, bool *chosen, double *margin)
{
    memset(chosen, 0, count * sizeof *chosen);
    double last = INFINITY;
    for (size_t k = 0; k <= n && k < count; k++) {
        size_t best = count;
        for (size_t i = 0; i < count; i++) {
            if (!chosen[i] && (best == count || value[i] > value[best])) {
                best = i;
            }
        }
        if (k == n) {
            *margin = isfinite(value[best]) ? fmin(*margin, last - value[best]) : *margin;
            return;
        }
        chosen[best] = true;
        last = value[best];
    }
}

static inline void o_note(struct oracle *o, const bool *chosen, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        o->choices = (o->choices ^ chosen[i]) * 0x100000001b3u;
    }
}

static inline void o_route(struct oracle *o, const double *score, const double *bias, bool *chosen)
{
    const struct model_config *c = o->c;
    size_t experts = c->n_routed_experts, groups = c->n_group, n = experts / groups;
    double *biased = o_new(experts), *group = o_new(groups);
    bool *allowed = calloc(groups, sizeof *allowed);
    for (size_t g = 0; g < groups; g++) {
        double first = -INFINITY, second = -INFINITY;
        for (size_t e = g * n; e < (g + 1) * n; e++) {
            biased[e] = score[e] + bias[e];
            if (biased[e] > first) {
                second = first;
                first = biased[e];
            } else {
                second = fmax(second, biased[e]);
            }
        }
        group[g] = first + (n > 1 ? second : 0);
    }
    o_top(group, groups, c->topk_group, allowed, &o->margin);
    for (size_t e = 0; e < experts; e++) {
        biased[e] = allowed[e / n] ? biased[e] : -INFINITY;
    }
    o_top(biased, experts, c->num_experts_per_tok, chosen, &o->margin);
    o_note(o, chosen, experts);
    free(biased), free(group), free(allowed);
}

static inline void o_moe(struct oracle *o, const char *p, size_t batch, size_t seq, const double *x,
                         double *y)
{
    const struct model_config *c = o->c;
    size_t h = c->hidden_size, experts = c->n_routed_experts, top_k = c->num_experts_per_tok;
    size_t rows = batch * seq;
    double *score = o_new(rows * experts);
    bool *chosen = calloc(experts, sizeof *chosen);
    char name[160];
    o_linear(x, o_weight(o, "%sgate.weight", p), rows, experts, h, score);
    for (size_t i = 0; i < rows * experts; i++) {
        score[i] = 1 / (1 + exp(-score[i]));
    }
    double *weight = o_new(experts * rows); /* [experts, rows] */
    for (size_t t = 0; t < rows; t++) {
        const double *s = score + t * experts;
        o_route(o, s, o_weight(o, "%sgate.e_score_correction_bias", p), chosen);
        double sum = 1e-20;
        for (size_t e = 0; e < experts; e++) {
            sum += chosen[e] ? s[e] : 0;
        }
        for (size_t e = 0; e < experts; e++) {
            weight[e * rows + t] =
                chosen[e] ? s[e] / (c->norm_topk_prob ? sum : 1) * c->routed_scaling_factor : 0;
        }
    }
    for (size_t e = 0; e < experts; e++) {
        snprintf(name, sizeof name, "%sexperts.%zu.", p, e);
        o_ffn(o, name, c->moe_intermediate_size, rows, x, weight + e * rows, y);
    }
    if (c->n_shared_experts > 0) {
        snprintf(name, sizeof name, "%sshared_experts.", p);
        o_ffn(o, name, c->moe_intermediate_size * c->n_shared_experts, rows, x, NULL, y);
    }
    free(weight);
    for (size_t b = 0; b < batch && o->alpha != 0; b++) {
        double *f = o_new(experts), *prob = o_new(experts);
        for (size_t t = b * seq; t < (b + 1) * seq; t++) {
            double sum = 0;
            o_top(score + t * experts, experts, top_k, chosen, &o->margin);
            o_note(o, chosen, experts);
            for (size_t e = 0; e < experts; e++) {
                sum += score[t * experts + e];
            }
            for (size_t e = 0; e < experts; e++) {
                f[e] += chosen[e] ? (double)experts / (double)(top_k * seq) : 0;
                prob[e] += score[t * experts + e] / sum / (double)seq;
            }
        }
        for (size_t e = 0; e < experts; e++) {
            o->balance += o->alpha * f[e] * prob[e];
        }
        free(f), free(prob);
    }
    free(score), free(chosen);
}

/* x becomes the layer's output. */
static inline void o_block(struct oracle *o, uint32_t layer, size_t batch, size_t seq, double *x)
{
    const struct model_config *c = o->c;
    size_t h = c->hidden_size, rows = batch * seq;
    double *n = o_new(rows * h), *y = o_new(rows * h);
    char p[64];
    snprintf(p, sizeof p, "model.layers.%u.", layer);
    o_norm(x, h, o_weight(o, "%sinput_layernorm.weight", p), c->rms_norm_eps, rows, h, n);
    snprintf(p, sizeof p, "model.layers.%u.self_attn.", layer);
    o_mla(o, p, batch, seq, n, y);
    for (size_t i = 0; i < rows * h; i++) {
        x[i] += y[i];
        y[i] = 0;
    }
    snprintf(p, sizeof p, "model.layers.%u.", layer);
    o_norm(x, h, o_weight(o, "%spost_attention_layernorm.weight", p), c->rms_norm_eps, rows, h, n);
    snprintf(p, sizeof p, "model.layers.%u.mlp.", layer);
    if (c->n_routed_experts > 0 && layer >= c->first_k_dense_replace) {
        o_moe(o, p, batch, seq, n, y);
    } else {
        o_ffn(o, p, c->intermediate_size, rows, n, NULL, y);
    }
    for (size_t i = 0; i < rows * h; i++) {
        x[i] += y[i];
    }
    free(n), free(y);
}

/* Sum of -log softmax(head(x))[target]; logits kept where asked. */
static inline double o_head(const struct oracle *o, const double *x, const int32_t *target,
                            size_t rows, double *logits)
{
    size_t vocab = o->c->vocab_size;
    const double *head = o->c->tie_word_embeddings ? o_weight(o, "model.embed_tokens.weight")
                                                   : o_weight(o, "lm_head.weight");
    double *z = o_new(vocab), loss = 0;
    for (size_t r = 0; r < rows; r++) {
        double top = -INFINITY, sum = 0;
        o_linear(x + r * o->c->hidden_size, head, 1, vocab, o->c->hidden_size, z);
        for (size_t i = 0; i < vocab; i++) {
            top = fmax(top, z[i]);
        }
        for (size_t i = 0; i < vocab; i++) {
            sum += exp(z[i] - top);
        }
        loss += log(sum) + top - z[target[r]];
        if (logits != NULL) {
            memcpy(logits + r * vocab, z, vocab * sizeof *z);
        }
    }
    free(z);
    return loss;
}

static inline void o_embed(const struct oracle *o, const int32_t *tokens, size_t shift, size_t seq,
                           double *x)
{
    size_t h = o->c->hidden_size;
    const double *table = o_weight(o, "model.embed_tokens.weight");
    for (size_t b = 0; b < o->batch; b++) {
        for (size_t i = 0; i < seq; i++) {
            int32_t token = tokens[b * (o->seq + 1) + i + shift];
            memcpy(x + (b * seq + i) * h, table + (size_t)token * h, h * sizeof *x);
        }
    }
}

static inline double o_targets_loss(const struct oracle *o, const double *x, const int32_t *tokens,
                                    size_t shift, size_t seq, double *logits)
{
    int32_t *target = calloc(o->batch * seq, sizeof *target);
    for (size_t b = 0; b < o->batch; b++) {
        memcpy(target + b * seq, tokens + b * (o->seq + 1) + shift, seq * sizeof *target);
    }
    double loss = o_head(o, x, target, o->batch * seq, logits);
    free(target);
    return loss;
}

/* previous [batch, seq + 1] rows -> this module's block output in place (the first batch * seq
 * rows) */
static inline double o_mtp(struct oracle *o, uint32_t k, size_t seq, double *previous,
                           const int32_t *tokens)
{
    const struct model_config *c = o->c;
    size_t h = c->hidden_size, rows = o->batch * seq;
    uint32_t layer = c->num_hidden_layers + k - 1;
    double *e = o_new(rows * h), *n = o_new(rows * h), *joined = o_new(rows * 2 * h);
    char p[64];
    snprintf(p, sizeof p, "model.layers.%u.", layer);
    o_embed(o, tokens, k, seq, e);
    o_norm(e, h, o_weight(o, "%senorm.weight", p), c->rms_norm_eps, rows, h, n);
    for (size_t r = 0; r < rows; r++) {
        memcpy(joined + r * 2 * h, n + r * h, h * sizeof *n);
        memmove(previous + r * h, previous + (r / seq * (seq + 1) + r % seq) * h, h * sizeof *n);
    }
    o_norm(previous, h, o_weight(o, "%shnorm.weight", p), c->rms_norm_eps, rows, h, n);
    for (size_t r = 0; r < rows; r++) {
        memcpy(joined + r * 2 * h + h, n + r * h, h * sizeof *n);
    }
    o_linear(joined, o_weight(o, "%seh_proj.weight", p), rows, h, 2 * h, previous);
    o_block(o, layer, o->batch, seq, previous);
    o_norm(previous, h, o_weight(o, "%sshared_head.norm.weight", p), c->rms_norm_eps, rows, h, n);
    double loss = o_targets_loss(o, n, tokens, k + 1, seq, NULL);
    free(e), free(n), free(joined);
    return loss;
}

/* The objective that is differentiated: sum of losses, lambda / D times those of MTP, seq times the
 * balance losses. */
static inline double oracle_run(struct oracle *o, const int32_t *tokens)
{
    const struct model_config *c = o->c;
    size_t h = c->hidden_size, rows = o->batch * o->seq;
    double *x = o_new(rows * h), *n = o_new(rows * h);
    o->balance = o->mtp_loss = 0;
    o->margin = INFINITY;
    o->choices = 0xcbf29ce484222325u;
    o_embed(o, tokens, 0, o->seq, x);
    for (uint32_t l = 0; l < c->num_hidden_layers; l++) {
        o_block(o, l, o->batch, o->seq, x);
    }
    o_norm(x, h, o_weight(o, "model.norm.weight"), c->rms_norm_eps, rows, h, n);
    o->loss = o_targets_loss(o, n, tokens, 1, o->seq, o->logits);
    for (uint32_t k = 1; k <= c->num_nextn_predict_layers; k++) {
        o->mtp_loss += o_mtp(o, k, o->seq - k, n, tokens) / c->num_nextn_predict_layers;
    }
    free(x), free(n);
    return o->loss + o->lambda * o->mtp_loss + (double)o->seq * o->balance;
}

static inline void oracle_fini(struct oracle *o)
{
    for (size_t i = 0; i < o->tensors; i++) {
        free(o->tensor[i].value);
    }
    free(o->tensor);
    free(o->logits);
}

#endif
