/* The recipe's choices in a whole model: each acts, and what is computed again comes out the same.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/trainer/model_fixture.h"

enum { BATCH = 2, SEQ = 65 };

static const struct mesh mesh = {.pipeline = 1, .expert = 1, .data = 1, .world = 1};

/* Wide enough for several FP8 tiles; q_rank 0 or not. */
static struct model_config config_of(uint32_t q_rank)
{
    return (struct model_config){
        .vocab_size = 61,
        .hidden_size = 144,
        .intermediate_size = 160,
        .moe_intermediate_size = 136,
        .num_hidden_layers = 3,
        .first_k_dense_replace = 1,
        .num_attention_heads = 8,
        .q_lora_rank = q_rank,
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
        .num_nextn_predict_layers = 2,
    };
}

/* What one forward and backward pass of fresh weights gives. */
struct result {
    struct model_losses sums;
    float *grad;
    size_t count, bytes;
};

static struct result run_on(const struct op_table *op, const struct model_config *c,
                            const struct recipe *recipe)
{
    struct model *m = NULL;
    struct err err = {0};
    struct result r = {0};
    const struct model_options o = {.config = c,
                                    .op = op,
                                    .mesh = &mesh,
                                    .recipe = recipe,
                                    .micro_batch = BATCH,
                                    .sequence_length = SEQ,
                                    .balance_alpha = 1e-3,
                                    .mtp_lambda = 0.3,
                                    .init_std = 0.05,
                                    .seed = 3};
    int32_t tokens[BATCH * (SEQ + 1)];
    for (int32_t i = 0; i < BATCH * (SEQ + 1); i++) {
        tokens[i] = i * i % 61;
    }
    if (model_create(&m, &o, &err) != 0) {
        fail_msg("%s", err.text);
    }
    model_init(m);
    size_t routers;
    struct router *router = model_routers(m, &routers);
    for (size_t i = 0; i < routers; i++) {
        for (uint32_t e = 2; e < router[i].experts; e++) {
            router[i].bias[e] = -10; /* a choice that flips would drown the rounding under test */
        }
    }
    for (int pass = 0; pass < 2; pass++) { /* nothing stays from the first */
        model_zero_grad(m);
        r.sums = (struct model_losses){0};
        assert_int_equal(model_train(m, tokens, 1.0 / (BATCH * SEQ), &r.sums, NULL), 0);
    }
    for (int experts = 0; experts < 2; experts++) {
        struct param_range range = model_param_range(m, experts != 0);
        r.grad = realloc(r.grad, (r.count + range.count) * sizeof(float));
        memcpy(r.grad + r.count, range.grad, range.count * sizeof(float));
        r.count += range.count;
    }
    r.bytes = model_bytes(m);
    model_destroy(m);
    return r;
}

static struct result run(const struct model_config *c, const struct recipe *recipe)
{
    return run_on(op_cpu(1), c, recipe);
}

static double distance(const struct result *a, const struct result *b)
{
    double diff = 0, size = 0;
    for (size_t i = 0; i < a->count; i++) {
        double d = (double)a->grad[i] - (double)b->grad[i];
        diff += d * d;
        size += (double)a->grad[i] * (double)a->grad[i];
    }
    return sqrt(diff / size);
}

/* Norms and up-projections computed again in the backward pass give the same losses and gradients
 * to the bit, in less memory, whatever else the recipe says. */
static void test_recompute(void **state)
{
    (void)state;
    for (int i = 0; i < 12; i++) {
        struct model_config c = config_of(i % 2 == 0 ? 48 : 0);
        struct recipe r = recipe_of((enum precision)(i % 3));
        if (i >= 6) {
            r.requantise = RECIPE_NO;
            r.dispatch = PRECISION_BF16;
            r.recompute_swiglu = (enum recipe_flag)(i % 2);
        }
        r.recompute_norm = r.recompute_mla_up = RECIPE_NO;
        struct result kept = run(&c, &r);
        for (int what = 1; what < 4; what++) {
            r.recompute_norm = (enum recipe_flag)(what & 1);
            r.recompute_mla_up = (enum recipe_flag)(what >> 1);
            struct result again = run(&c, &r);
            assert_true(memcmp(&kept.sums, &again.sums, sizeof kept.sums) == 0);
            assert_memory_equal(kept.grad, again.grad, kept.count * sizeof(float));
            assert_true(again.bytes < kept.bytes);
            if (what == 3 && i < 3) {
                printf("  precision %d: %zu KiB, recomputed %zu KiB\n", i % 3, kept.bytes / 1024,
                       again.bytes / 1024);
            }
            free(again.grad);
        }
        free(kept.grad);
    }
}

/* Any recipe that can be written. */
static struct recipe random_recipe(void)
{
    struct recipe r = recipe_of((enum precision)pick(0, 2));
    enum precision *const precision[] = {&r.fprop, &r.dgrad, &r.wgrad, &r.swiglu_input,
                                         &r.dispatch};
    enum recipe_flag *const flag[] = {&r.requantise, &r.recompute_norm, &r.recompute_mla_up,
                                      &r.recompute_swiglu};
    for (size_t i = 0; i < sizeof precision / sizeof precision[0]; i++) {
        *precision[i] = pick(0, 1) ? *precision[i] : (enum precision)pick(0, 2);
    }
    for (size_t i = 0; i < sizeof flag / sizeof flag[0]; i++) {
        *flag[i] = (enum recipe_flag)pick(0, 1);
    }
    r.rest = (enum precision)pick(PRECISION_FP32, PRECISION_BF16);
    r.combine = (enum precision)pick(PRECISION_FP32, PRECISION_BF16);
    r.x_tile = (enum recipe_tile)pick(0, 1);
    r.dy_tile = (enum recipe_tile)pick(0, 1);
    r.attention_output = (enum recipe_cache)pick(0, 3);
    r.dispatch_scale = (enum recipe_scale)pick(0, 1);
    return r;
}

/* What is kept as codes comes out as the numbers that a back end without codes keeps, to the bit,
 * in less memory. */
static void test_codes(void **state)
{
    (void)state;
    struct op_table numbers = *op_cpu(1);
    numbers.pack = NULL;
    numbers.unpack = NULL;
    for (int i = 0; i < 25; i++) {
        struct model_config c = config_of(pick(0, 1) ? 48 : 0);
        struct recipe r = i < 3 ? recipe_of((enum precision)i) : random_recipe();
        struct result codes = run(&c, &r), wide = run_on(&numbers, &c, &r);
        assert_true(memcmp(&codes.sums, &wide.sums, sizeof wide.sums) == 0);
        assert_memory_equal(codes.grad, wide.grad, wide.count * sizeof(float));
        if (i < 3) {
            printf("  precision %d: %zu KiB, as numbers %zu KiB\n", i, codes.bytes / 1024,
                   wide.bytes / 1024);
            assert_true(i == 0 ? codes.bytes == wide.bytes : codes.bytes < wide.bytes);
        }
        free(codes.grad), free(wide.grad);
    }
}

/* The SwiGLU product kept instead of computed again takes more memory, and is the same where its
 * inputs are kept as they were. */
static void test_swiglu(void **state)
{
    (void)state;
    struct model_config c = config_of(48);
    struct recipe r = recipe_of(PRECISION_BF16);
    struct result again = run(&c, &r);
    r.recompute_swiglu = RECIPE_NO;
    struct result kept = run(&c, &r);
    assert_memory_equal(kept.grad, again.grad, kept.count * sizeof(float));
    assert_true(again.bytes < kept.bytes);
    free(kept.grad), free(again.grad);
}

/* Each choice taken back changes the gradients, and none by more than FP8 itself does. */
static void test_each_choice(void **state)
{
    (void)state;
    struct model_config c = config_of(48);
    const struct recipe fp8 = recipe_of(PRECISION_FP8), fp32 = recipe_of(PRECISION_FP32);
    struct result base = run(&c, &fp8), exact = run(&c, &fp32);
    double whole = distance(&exact, &base);
    printf("  fp8 against fp32: %.4f\n", whole);
    assert_true(whole > 0.005 && whole < 0.3);
#define CHOICE(field, value)                                                                       \
    do {                                                                                           \
        struct recipe r = fp8;                                                                     \
        r.field = (value);                                                                         \
        assert_false(recipe_equal(&r, &fp8));                                                      \
        struct result other = run(&c, &r);                                                         \
        double d = distance(&base, &other), left = distance(&exact, &other);                       \
        printf("  %s: moves it by %.4f, to %.4f from fp32\n", #field " " #value, d, left);         \
        assert_true(d > 1e-5 && left < 1.5 * whole);                                               \
        free(other.grad);                                                                          \
    } while (0)
    CHOICE(fprop, PRECISION_BF16);
    CHOICE(fprop, PRECISION_FP32);
    CHOICE(dgrad, PRECISION_BF16);
    CHOICE(dgrad, PRECISION_FP32);
    CHOICE(wgrad, PRECISION_BF16);
    CHOICE(wgrad, PRECISION_FP32);
    CHOICE(rest, PRECISION_BF16);
    CHOICE(x_tile, RECIPE_TILE_BLOCK);
    CHOICE(dy_tile, RECIPE_TILE_BLOCK);
    CHOICE(requantise, RECIPE_NO);
    CHOICE(attention_output, RECIPE_CACHE_FP32);
    CHOICE(attention_output, RECIPE_CACHE_BF16);
    CHOICE(attention_output, RECIPE_CACHE_FP8);
    CHOICE(swiglu_input, PRECISION_FP32);
    CHOICE(swiglu_input, PRECISION_BF16);
    CHOICE(dispatch, PRECISION_FP32);
    CHOICE(dispatch, PRECISION_BF16);
    CHOICE(dispatch_scale, RECIPE_SCALE_EXACT);
    CHOICE(combine, PRECISION_FP32);
    free(base.grad), free(exact.grad);
}

/* With every product and every store in FP32 nothing of FP8 is left, whatever the job's precision
 * was. */
static void test_nothing_left(void **state)
{
    (void)state;
    struct model_config c = config_of(0);
    const struct recipe fp32 = recipe_of(PRECISION_FP32);
    struct recipe r = recipe_of(PRECISION_FP8);
    r.fprop = r.dgrad = r.wgrad = r.swiglu_input = r.dispatch = r.combine = PRECISION_FP32;
    r.attention_output = RECIPE_CACHE_FP32;
    struct result a = run(&c, &fp32), b = run(&c, &r);
    assert_memory_equal(a.grad, b.grad, a.count * sizeof(float));
    free(a.grad), free(b.grad);
}

/* A model whose sequences are cut into contexts computes what one of such short sequences does, to
 * the bit, and afterwards again what it did. */
static void test_contexts(void **state)
{
    (void)state;
    enum { LONG = 64, SHORT = 16, CUTS = LONG / SHORT };
    struct model_config c = config_of(48);
    struct model_losses whole[2] = {0}, cut = {0}, sums = {0};
    int32_t tokens[2 * (LONG + 1)], pieces[2 * CUTS * (SHORT + 1)];
    struct model *a = NULL, *b = NULL;
    struct model_options o = {.config = &c,
                              .op = op_cpu(1),
                              .mesh = &mesh,
                              .precision = PRECISION_FP8,
                              .micro_batch = 2,
                              .sequence_length = LONG,
                              .shortest_context = SHORT,
                              .balance_alpha = 1e-3,
                              .mtp_lambda = 0.3,
                              .init_std = 0.05,
                              .seed = 3};
    assert_int_equal(model_create(&a, &o, NULL), 0);
    o.micro_batch = 2 * CUTS;
    o.sequence_length = SHORT;
    o.shortest_context = 0;
    assert_int_equal(model_create(&b, &o, NULL), 0);
    model_init(a), model_init(b);
    for (int32_t i = 0; i < 2 * (LONG + 1); i++) {
        tokens[i] = i * i % 61;
    }
    for (int i = 0; i < 2 * CUTS; i++) {
        memcpy(pieces + i * (SHORT + 1), tokens + i / CUTS * (LONG + 1) + i % CUTS * SHORT,
               (SHORT + 1) * sizeof *tokens);
    }
    for (int pass = 0; pass < 2; pass++) {
        model_set_context(a, LONG);
        assert_int_equal(model_train(a, tokens, 0.01, &whole[pass], NULL), 0);
        model_zero_grad(a);
        model_set_context(a, SHORT);
        sums = (struct model_losses){0};
        assert_int_equal(model_train(a, tokens, 0.01, &sums, NULL), 0);
        if (pass == 0) {
            assert_int_equal(model_train(b, pieces, 0.01, &cut, NULL), 0);
        }
        assert_memory_equal(&sums, &cut, sizeof cut);
        for (int experts = 0; experts < 2; experts++) {
            struct param_range x = model_param_range(a, experts != 0);
            struct param_range y = model_param_range(b, experts != 0);
            assert_memory_equal(x.grad, y.grad, x.count * sizeof(float));
        }
    }
    assert_memory_equal(&whole[0], &whole[1], sizeof whole[0]);
    assert_true(whole[0].loss != cut.loss);
    model_destroy(a), model_destroy(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codes),        cmocka_unit_test(test_recompute),
        cmocka_unit_test(test_swiglu),       cmocka_unit_test(test_each_choice),
        cmocka_unit_test(test_nothing_left), cmocka_unit_test(test_contexts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
