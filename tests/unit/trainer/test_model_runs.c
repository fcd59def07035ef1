/* Behaviour of the whole model: precisions, reproducibility, learning, refusals. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/trainer/model_fixture.h"

static struct mesh mesh;

/* A model with everything in it, wide enough for several FP8 tiles. */
static struct model_config small_config(void)
{
    return (struct model_config){
        .vocab_size = 61,
        .hidden_size = 144,
        .intermediate_size = 160,
        .moe_intermediate_size = 72,
        .num_hidden_layers = 3,
        .first_k_dense_replace = 1,
        .num_attention_heads = 4,
        .q_lora_rank = 48,
        .kv_lora_rank = 40,
        .qk_nope_head_dim = 16,
        .qk_rope_head_dim = 8,
        .v_head_dim = 20,
        .n_routed_experts = 8,
        .n_shared_experts = 1,
        .num_experts_per_tok = 2,
        .n_group = 4,
        .topk_group = 2,
        .norm_topk_prob = true,
        .routed_scaling_factor = 1.5,
        .rms_norm_eps = 1e-6,
        .rope_theta = 10000,
        .max_position_embeddings = 512,
        .num_nextn_predict_layers = 1,
    };
}

static struct model_options small_options(const struct model_config *c, enum precision precision,
                                          int threads)
{
    return (struct model_options){.config = c,
                                  .op = op_cpu(threads),
                                  .mesh = &mesh,
                                  .precision = precision,
                                  .micro_batch = 2,
                                  .sequence_length = 65,
                                  .balance_alpha = 1e-3,
                                  .mtp_lambda = 0.3,
                                  .init_std = 0.05,
                                  .seed = 3};
}

static struct model *create(const struct model_options *o)
{
    struct model *m = NULL;
    struct err err = {0};
    if (model_create(&m, o, &err) != 0) {
        fail_msg("%s", err.text);
    }
    model_init(m);
    return m;
}

static double dot_of(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return sum;
}

/* 1 - cosine of the angle between the gradients of a precision and FP32, worst tensor of those that
 * matter. */
static double angle(struct model *a, struct model *b)
{
    size_t count;
    double worst = 0, most = 0;
    struct param *p = model_params(a, &count), *q = model_params(b, &count);
    for (size_t i = 0; i < count; i++) {
        most = fmax(most, sqrt(dot_of(p[i].grad, p[i].grad, p[i].count)));
    }
    for (size_t i = 0; i < count; i++) {
        double aa = dot_of(p[i].grad, p[i].grad, p[i].count),
               bb = dot_of(q[i].grad, q[i].grad, p[i].count);
        if (p[i].expert < 0 && sqrt(aa) > 1e-3 * most) {
            worst = fmax(worst, 1 - dot_of(p[i].grad, q[i].grad, p[i].count) / sqrt(aa * bb));
        }
    }
    return worst;
}

/* All tokens to the same two experts: a choice that flips with the last bit would drown the
 * rounding under test. */
static void fix_routing(struct model *m)
{
    size_t count;
    struct router *r = model_routers(m, &count);
    for (size_t i = 0; i < count; i++) {
        for (uint32_t e = 2; e < r[i].experts; e++) {
            r[i].bias[e] = -10;
        }
    }
}

/* BF16 and FP8 stay near FP32, FP8 further than BF16, neither equal: losses to 0.1% and 1%,
 * gradients nearly parallel. */
static void test_precisions(void **state)
{
    (void)state;
    struct model_config c = small_config();
    struct model *model[3];
    struct model_losses sums[3] = {0};
    double angles[3] = {0};
    int32_t *tokens = NULL;
    for (int i = 0; i < 3; i++) {
        struct model_options o = small_options(&c, (enum precision)i, 1);
        tokens = i == 0 ? fixture_tokens(&o) : tokens;
        model[i] = create(&o);
        fix_routing(model[i]);
        assert_int_equal(model_train(model[i], tokens, 1.0 / 130, &sums[i], NULL), 0);
        angles[i] = i > 0 ? angle(model[0], model[i]) : 0;
    }
    printf("  loss fp32 %.5f bf16 %.5f fp8 %.5f; 1 - cosine of the worst gradient: bf16 %.2g, fp8 "
           "%.2g\n",
           sums[0].loss / 130, sums[1].loss / 130, sums[2].loss / 130, angles[1], angles[2]);
    double bf16 = fabs(sums[1].loss / sums[0].loss - 1),
           fp8 = fabs(sums[2].loss / sums[0].loss - 1);
    assert_true(bf16 > 0 && bf16 < 1e-3);
    assert_true(fp8 > 0 && fp8 < 1e-2);
    assert_true(angles[1] > 0 && angles[1] < 1e-3);
    assert_true(angles[2] > angles[1] && angles[2] < 0.1);
    for (int i = 0; i < 3; i++) {
        model_destroy(model[i]);
    }
    free(tokens);
}

/* The gradient is proportional to grad_scale in every precision: FP8 rounding does not depend on
 * the size of the batch. */
static void test_grad_scale(void **state)
{
    (void)state;
    struct model_config c = small_config();
    for (int i = 0; i < 3; i++) {
        struct model_options o = small_options(&c, (enum precision)i, 1);
        struct model *a = create(&o), *b = create(&o);
        int32_t *tokens = fixture_tokens(&o);
        struct model_losses sums = {0};
        assert_int_equal(model_train(a, tokens, 1, &sums, NULL), 0);
        assert_int_equal(model_train(b, tokens, 0x1p-30, &sums, NULL), 0);
        for (int experts = 0; experts <= 1; experts++) {
            struct param_range x = model_param_range(a, experts), y = model_param_range(b, experts);
            for (size_t j = 0; j < x.count; j++) {
                assert_true(x.grad[j] * 0x1p-30f == y.grad[j]);
            }
        }
        model_destroy(a), model_destroy(b), free(tokens);
    }
}

/* Two models give the same bits, and a second micro-batch adds to the first's gradient. */
static void test_reproducible(void **state)
{
    (void)state;
    struct model_config c = small_config();
    for (int i = 0; i < 6; i++) {
        struct model_options o = small_options(&c, (enum precision)(i % 3), i < 3 ? 1 : 2);
        struct model *a = create(&o), *b = create(&o);
        int32_t *tokens = fixture_tokens(&o), *more = fixture_tokens(&o);
        struct model_losses sa = {0}, sb = {0};
        assert_int_equal(model_train(a, tokens, 0.01, &sa, NULL), 0);
        assert_int_equal(model_train(b, more, 0.01, &sb, NULL),
                         0); /* leaves something in every buffer */
        model_zero_grad(b);
        sb = (struct model_losses){0};
        assert_int_equal(model_train(b, tokens, 0.01, &sb, NULL), 0);
        assert_memory_equal(&sa, &sb, sizeof sa);
        for (int experts = 0; experts <= 1; experts++) {
            struct param_range x = model_param_range(a, experts), y = model_param_range(b, experts);
            assert_memory_equal(x.grad, y.grad, x.count * sizeof(float));
            assert_memory_equal(x.weight, y.weight, x.count * sizeof(float));
        }
        assert_int_equal(model_train(b, tokens, 0.01, &sb, NULL), 0);
        struct param_range x = model_param_range(a, false), y = model_param_range(b, false);
        double once = dot_of(x.grad, x.grad, x.count), twice = dot_of(x.grad, y.grad, x.count);
        assert_true(fabs(twice / once - 2) < 1e-4);
        model_destroy(a), model_destroy(b), free(tokens), free(more);
    }
    op_cpu(1);
}

/* Several threads give what one does, up to the order of sums. */
static void test_threads(void **state)
{
    (void)state;
    struct model_config c = small_config();
    struct model_options o = small_options(&c, PRECISION_FP32, 1);
    int32_t *tokens = fixture_tokens(&o);
    struct model_losses one = {0}, three = {0};
    struct model *a = create(&o);
    assert_int_equal(model_train(a, tokens, 0.01, &one, NULL), 0);
    o = small_options(&c, PRECISION_FP32, 3);
    struct model *b = create(&o);
    assert_int_equal(model_train(b, tokens, 0.01, &three, NULL), 0);
    assert_true(fabs(one.loss - three.loss) < 1e-6 * one.loss);
    assert_true(angle(a, b) < 1e-6);
    model_destroy(a), model_destroy(b), free(tokens);
    op_cpu(1);
}

/* Evaluation gives training's losses and changes neither gradients nor, unless asked, loads. */
static void test_eval(void **state)
{
    (void)state;
    struct model_config c = small_config();
    for (int i = 0; i < 3; i++) {
        struct model_options o = small_options(&c, (enum precision)i, 1);
        struct model *m = create(&o);
        int32_t *tokens = fixture_tokens(&o);
        struct model_losses trained = {0}, evaluated = {0};
        size_t routers;
        struct router *r = model_routers(m, &routers);
        assert_int_equal(routers, 3); /* two layers and the MTP module */
        assert_int_equal(model_eval(m, tokens, false, &evaluated, NULL), 0);
        uint64_t load = 0;
        for (uint32_t e = 0; e < r[0].experts; e++) {
            load += r[0].load[e];
        }
        assert_true(load == 0);
        struct param_range range = model_param_range(m, false);
        assert_true(dot_of(range.grad, range.grad, range.count) == 0);
        assert_int_equal(model_train(m, tokens, 1, &trained, NULL), 0);
        assert_memory_equal(&trained, &evaluated, sizeof trained);
        for (uint32_t e = 0; e < r[0].experts; e++) {
            load += r[0].load[e];
        }
        assert_true(load == 2 * 65 * 2);
        assert_int_equal(model_eval(m, tokens, true, &evaluated, NULL), 0);
        model_router_reset(m);
        assert_true(r[2].load[0] == 0);
        model_destroy(m), free(tokens);
    }
}

/* Plain gradient descent learns one small batch by heart in every precision: from ln(vocabulary) to
 * below a tenth of it. */
static void test_overfit(void **state)
{
    (void)state;
    struct model_config c = small_config();
    for (int i = 0; i < 3; i++) {
        struct model_options o = small_options(&c, (enum precision)i, 1);
        o.sequence_length = 24;
        struct model *m = create(&o);
        int32_t *tokens = fixture_tokens(&o);
        double first = 0, last = 0;
        for (int step = 0; step < 250; step++) {
            struct model_losses sums = {0};
            model_zero_grad(m);
            assert_int_equal(model_train(m, tokens, 1.0 / 48, &sums, NULL), 0);
            last = sums.loss / 48;
            first = step == 0 ? last : first;
            for (int experts = 0; experts <= 1; experts++) {
                struct param_range p = model_param_range(m, experts);
                for (size_t j = 0; j < p.count; j++) {
                    p.weight[j] -= 0.15f * p.grad[j];
                }
            }
            model_refresh(m);
        }
        printf("  precision %d: loss %.3f -> %.3f\n", i, first, last);
        assert_true(fabs(first - log(61)) < 0.5);
        assert_true(last < 0.4);
        model_destroy(m), free(tokens);
    }
}

/* Fresh weights depend on seed and name only: norms 1, matrices normal with the asked deviation,
 * whatever the precision or batch. */
static void test_init(void **state)
{
    (void)state;
    struct model_config c = small_config();
    struct model_options o = small_options(&c, PRECISION_FP8, 1),
                         p = small_options(&c, PRECISION_FP32, 1);
    p.micro_batch = 1;
    p.sequence_length = 8;
    struct model *a = create(&o), *b = create(&p);
    size_t count;
    struct param *x = model_params(a, &count), *y = model_params(b, &count);
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(x[i].name, y[i].name);
        assert_memory_equal(x[i].weight, y[i].weight, x[i].count * sizeof(float));
        double square = dot_of(x[i].weight, x[i].weight, x[i].count) / (double)x[i].count;
        assert_true(fabs(sqrt(square) - (x[i].is_vector ? 1 : 0.05)) <
                    0.05 * 6 / sqrt(2.0 * (double)x[i].count));
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(x[i].name, x[j].name);
        }
    }
    model_destroy(a), model_destroy(b);
}

static const struct param *find(struct model *m, const char *name)
{
    size_t count;
    struct param *p = model_params(m, &count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(p[i].name, name) == 0) {
            return &p[i];
        }
    }
    fail_msg("no %s", name);
    return NULL;
}

/* Names and shapes are the published ones. */
static void test_names(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t rows, cols;
        bool quantised;
    } known[] = {
        {"model.embed_tokens.weight", 61, 144, false},
        {"lm_head.weight", 61, 144, false},
        {"model.norm.weight", 144, 1, false},
        {"model.layers.0.input_layernorm.weight", 144, 1, false},
        {"model.layers.0.self_attn.q_a_proj.weight", 48, 144, true},
        {"model.layers.0.self_attn.q_a_layernorm.weight", 48, 1, false},
        {"model.layers.0.self_attn.q_b_proj.weight", 96, 48, true},
        {"model.layers.0.self_attn.kv_a_proj_with_mqa.weight", 48, 144, true},
        {"model.layers.0.self_attn.kv_a_layernorm.weight", 40, 1, false},
        {"model.layers.0.self_attn.kv_b_proj.weight", 144, 40, true},
        {"model.layers.0.self_attn.o_proj.weight", 144, 80, true},
        {"model.layers.0.post_attention_layernorm.weight", 144, 1, false},
        {"model.layers.0.mlp.gate_proj.weight", 160, 144, true},
        {"model.layers.0.mlp.down_proj.weight", 144, 160, true},
        {"model.layers.1.mlp.gate.weight", 8, 144, false},
        {"model.layers.1.mlp.experts.7.up_proj.weight", 72, 144, true},
        {"model.layers.1.mlp.experts.7.down_proj.weight", 144, 72, true},
        {"model.layers.1.mlp.shared_experts.gate_proj.weight", 72, 144, true},
        {"model.layers.3.enorm.weight", 144, 1, false},
        {"model.layers.3.hnorm.weight", 144, 1, false},
        {"model.layers.3.eh_proj.weight", 144, 288, false},
        {"model.layers.3.shared_head.norm.weight", 144, 1, false},
        {"model.layers.3.mlp.experts.0.gate_proj.weight", 72, 144, true},
    };
    struct model_config c = small_config();
    struct model_options o = small_options(&c, PRECISION_FP8, 1);
    struct model *m = create(&o);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const struct param *p = find(m, known[i].name);
        assert_int_equal(p->rows, known[i].rows);
        assert_int_equal(p->cols, known[i].cols);
        assert_int_equal(p->quantised, known[i].quantised);
        assert_int_equal(p->is_vector, known[i].cols == 1);
    }
    assert_int_equal(find(m, "model.layers.2.mlp.experts.5.up_proj.weight")->expert, 5);
    model_destroy(m);
}

/* A token outside the vocabulary is refused with its place. */
static void test_bad_tokens(void **state)
{
    (void)state;
    struct model_config c = small_config();
    struct model_options o = small_options(&c, PRECISION_FP32, 1);
    struct model *m = create(&o);
    int32_t *tokens = fixture_tokens(&o);
    struct model_losses sums = {0};
    struct err err = {0};
    tokens[66 + 5] = 61;
    assert_int_equal(model_train(m, tokens, 1, &sums, &err), ERR_DATA);
    assert_non_null(strstr(err.text, "token 61 at position 5 of sequence 1"));
    tokens[66 + 5] = -1;
    assert_int_equal(model_eval(m, tokens, false, &sums, &err), ERR_DATA);
    assert_true(sums.loss == 0);
    model_destroy(m), free(tokens);
}

/* A NaN in a weight comes out as a NaN loss in every precision. */
static void test_nan_shows(void **state)
{
    (void)state;
    struct model_config c = small_config();
    for (int i = 0; i < 3; i++) {
        struct model_options o = small_options(&c, (enum precision)i, 1);
        struct model *m = create(&o);
        int32_t *tokens = fixture_tokens(&o);
        struct model_losses sums = {0};
        find(m, "model.layers.1.self_attn.o_proj.weight")->weight[7] = NAN;
        model_refresh(m);
        assert_int_equal(model_train(m, tokens, 1, &sums, NULL), 0);
        assert_true(isnan(sums.loss));
        model_destroy(m), free(tokens);
    }
}

/* Shapes that cannot be built are refused with the key. */
static void test_refusals(void **state)
{
    (void)state;
    const struct model_config good = small_config();
    struct model_config c;
    struct model_options o;
    struct model *m = NULL;
    struct err err;
#define REFUSED(change, word)                                                                      \
    do {                                                                                           \
        mesh = fixture_mesh();                                                                     \
        c = good;                                                                                  \
        o = small_options(&c, PRECISION_FP32, 1);                                                  \
        err = (struct err){0};                                                                     \
        change;                                                                                    \
        assert_int_equal(model_create(&m, &o, &err), ERR_CONFIG);                                  \
        assert_non_null(strstr(err.text, word));                                                   \
    } while (0)
    REFUSED(c.vocab_size = 0, "vocab_size");
    REFUSED(c.hidden_size = 0, "hidden_size");
    REFUSED(c.num_hidden_layers = 0, "num_hidden_layers");
    REFUSED(c.qk_rope_head_dim = 7, "qk_rope_head_dim");
    REFUSED(c.num_experts_per_tok = 9, "num_experts_per_tok");
    REFUSED(c.num_experts_per_tok = 5, "topk_group");
    REFUSED(c.n_group = 3, "n_group");
    REFUSED(c.topk_group = 5, "topk_group");
    REFUSED(o.sequence_length = 1, "sequence_length");
    REFUSED(o.micro_batch = 0, "micro_batch");
    REFUSED(mesh.expert = 9, "expert");
    REFUSED(mesh.pipeline = 2, "pipeline");
    REFUSED(o.micro_batch = 2000000000, "micro_batch");
    mesh = fixture_mesh();
    model_destroy(NULL);
}

int main(void)
{
    random_start("test_model_runs");
    mesh = fixture_mesh();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_precisions),   cmocka_unit_test(test_grad_scale),
        cmocka_unit_test(test_reproducible), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_eval),         cmocka_unit_test(test_overfit),
        cmocka_unit_test(test_init),         cmocka_unit_test(test_names),
        cmocka_unit_test(test_bad_tokens),   cmocka_unit_test(test_nan_shows),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
