/* The plan of a run on GPUs against the model that the trainer builds, the published figures, and
 * sums made by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "tests/unit/trainer/model_fixture.h"
#include "proto/pipeline_schedule.h"
#include "proto/plan_run.h"

/* DeepSeek-V3 on 2,048 GPUs: reference §3. */
static struct model_config published;

static struct plan_run published_run(void)
{
    struct err err = {0};
    assert_int_equal(model_config_parse(&published, "{}", 2, "published", &err), 0);
    struct plan_run run = {.model = &published,
                           .recipe = recipe_of(PRECISION_FP8),
                           .kind = PIPELINE_DUALPIPEV,
                           .pipeline = 16,
                           .expert = 64,
                           .data = 2,
                           .zero = 1,
                           .sequence_length = 4096,
                           .micro_batch = 1,
                           .micros = 120,
                           .ema = true};
    run.recipe.rest = PRECISION_BF16;
    return run;
}

static struct plan_memory plan(const struct plan_run *run, uint32_t index)
{
    struct plan_memory m;
    struct err err = {0};
    if (plan_memory(run, index, &m, &err) != 0) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(m.total, m.weights + m.gradients + m.optimizer + m.activations + m.workspace +
                                  m.reserved);
    return m;
}

static void test_published_mesh_fits(void **state)
{
    (void)state;
    struct plan_run run = published_run();
    uint64_t experts_here = 0, params = 0;
    for (uint32_t i = 0; i < run.pipeline; i++) {
        struct plan_memory m = plan(&run, i);
        print_message("pipeline index %u: %.2f GB\n", i, (double)m.total / 1e9);
        assert_true(m.total < 80000000000u);
        params += m.params;
        for (uint32_t s = 0; s < m.stage_count; s++) {
            for (uint32_t l = m.first_layer[s]; l < m.first_layer[s] + m.layers[s]; l++) {
                experts_here += model_config_is_moe(&published, l) ? 4 : 0;
            }
        }
    }
    experts_here += 4; /* the MTP module's, with the last stage */
    /* every rank of an expert group has the dense parameters and its share of the experts */
    uint64_t expert = 3ull * 7168 * 2048;
    assert_int_equal(params - experts_here * expert + 64 * experts_here * expert,
                     model_config_params_total(&published) + model_config_params_mtp(&published));
}

/* Reference §6: 250.45 GFLOPs a token at 4,096; a step of 19.926 s, 272.8B tokens a day; §4:
 * 2,664K GPU-hours of pre-training. */
static void test_published_figures(void **state)
{
    (void)state;
    struct plan_run run = published_run();
    struct plan_cost c =
        plan_cost_of(&run, 14800000000000u, PLAN_MFU, PLAN_PEAK_FLOPS, PLAN_MICRO_USD_PER_GPU_HOUR);
    assert_true(fabs(c.flops_per_token / 250.45e9 - 1) < 1e-3);
    assert_true(fabs(c.step_ms / 19926 - 1) < 5e-3);
    assert_true(fabs((double)c.gpu_ms / 3.6e6 / 2664000 - 1) < 5e-3);
    assert_true(fabs((double)c.micro_usd / 5.328e12 - 1) < 5e-3);
    assert_int_equal(c.steps, (14800000000000u + 62914559) / 62914560);
    /* two of 2P stages a rank: (P - 1)(F + B + B - 3W) over that and 120 x 2 x (F + B) */
    assert_true(fabs(c.bubble_ms / c.step_ms - 30.0 / (720 + 30)) < 1e-12);
}

/* The parameters of a rank are those of the model that it would build. */
static void test_params_are_the_models(void **state)
{
    (void)state;
    for (int round = 0; round < 60; round++) {
        struct model_config c = fixture_config();
        c.num_hidden_layers = pick(2, 7);
        enum pipeline_kind kind =
            c.num_hidden_layers >= 4 && pick(0, 1) ? PIPELINE_DUALPIPEV : PIPELINE_1F1B;
        struct plan_run run = {.model = &c,
                               .recipe = recipe_of((enum precision)pick(0, 2)),
                               .kind = kind,
                               .pipeline = 2,
                               .expert = c.n_routed_experts % 2 == 0 ? pick(1, 2) : 1,
                               .data = pick(1, 3),
                               .zero = pick(0, 1),
                               .sequence_length = 8,
                               .micro_batch = 1,
                               .micros = pick(4, 9)};
        for (uint32_t i = 0; i < run.pipeline; i++) {
            struct mesh mesh = {.pipeline = 2,
                                .expert = run.expert,
                                .data = run.data,
                                .world = 2 * run.expert * run.data,
                                .pipeline_index = i};
            struct model_options o = {.config = &c,
                                      .op = op_cpu(1),
                                      .mesh = &mesh,
                                      .recipe = &run.recipe,
                                      .micro_batch = 1,
                                      .sequence_length = 8,
                                      .stages = pipeline_stages_here(kind)};
            struct plan_memory m = plan(&run, i);
            for (uint32_t s = 0; s < o.stages; s++) {
                o.stage[s] = (struct model_stage){m.first_layer[s], m.layers[s], 1};
            }
            struct model *model;
            struct err err = {0};
            if (model_create(&model, &o, &err) != 0) {
                fail_msg("%s", err.text);
            }
            size_t count, routers;
            uint64_t params = 0;
            const struct param *p = model_params(model, &count);
            for (size_t j = 0; j < count; j++) {
                params += p[j].copy ? 0 : p[j].count;
            }
            const struct router *router = model_routers(model, &routers);
            for (size_t j = 0; j < routers; j++) { /* of all layers: count those that are here */
                uint32_t layer = 0;
                assert_int_equal(sscanf(router[j].name, "model.layers.%u.", &layer), 1);
                bool here = layer >= c.num_hidden_layers && kind == PIPELINE_DUALPIPEV && i == 0;
                here |= layer >= c.num_hidden_layers && kind == PIPELINE_1F1B && i == 1;
                for (uint32_t s = 0; s < o.stages; s++) {
                    here |= layer >= m.first_layer[s] && layer < m.first_layer[s] + m.layers[s];
                }
                params += here ? router[j].experts : 0;
            }
            assert_int_equal(m.params, params);
            model_destroy(model);
        }
    }
}

/* One dense layer, no compression of queries, one rank, BF16: every term by hand. */
static void test_by_hand(void **state)
{
    (void)state;
    struct model_config c = {.vocab_size = 1000,
                             .hidden_size = 256,
                             .intermediate_size = 512,
                             .num_hidden_layers = 1,
                             .first_k_dense_replace = 1,
                             .num_attention_heads = 4,
                             .kv_lora_rank = 128,
                             .qk_nope_head_dim = 32,
                             .qk_rope_head_dim = 16,
                             .v_head_dim = 32,
                             .num_experts_per_tok = 1};
    struct plan_run run = {.model = &c,
                           .recipe = recipe_of(PRECISION_BF16),
                           .kind = PIPELINE_1F1B,
                           .pipeline = 1,
                           .expert = 1,
                           .data = 1,
                           .zero = 1,
                           .sequence_length = 64,
                           .micro_batch = 2,
                           .micros = 3};
    struct plan_memory m = plan(&run, 0);
    uint64_t latents = 4 * 48 + 128 + 16;
    uint64_t linears = 256 * latents + 128 * 4 * 64 + 4 * 32 * 256 + 3 * 256 * 512;
    uint64_t vectors = 2 * 256 + 128 + 256, others = 2 * 1000 * 256;
    assert_int_equal(m.params, linears + vectors + others);
    assert_int_equal(m.weights, 2 * linears + 4 * vectors + 2 * others);
    assert_int_equal(m.gradients, 4 * m.params);
    assert_int_equal(m.optimizer, 12 * m.params); /* FP32 master and moments */
    assert_int_equal(m.host, 12 * m.params);      /* a checkpoint's copy of them */
    /* kept of a token: the input, latents, norm outputs of both inputs and of the latent; k and v;
     * the output, its log-sum and three 1/rms; the middle and its norm; gate and up */
    uint64_t kept = 2 * (256 + latents) + 2 * (256 + 128) + 2 * 4 * (48 + 32) + 2 * 4 * 32;
    kept += 4 * (4 + 3) + 2 * 256 + 4 + 2 * 256 + 2 * 2 * 512;
    assert_int_equal(m.activations, 128 * kept);
    assert_int_equal(m.passes, 1);
    assert_int_equal(m.reserved, PLAN_RESERVED_BYTES);
    run.ema = true;
    assert_int_equal(plan(&run, 0).host, 20 * m.params); /* the average, and its copy */
}

static void test_choices_cost_what_they_should(void **state)
{
    (void)state;
    struct plan_run run = published_run(), other = run;
    struct plan_memory m = plan(&run, 5), n;
    other.micro_batch = 2;
    other.micros = 60;
    n = plan(&other, 5);
    assert_true(llabs((int64_t)n.activations - 2 * (int64_t)m.activations) < 4);
    other = run;
    other.zero = 0;
    assert_int_equal(plan(&other, 5).optimizer, 8 * m.params); /* FP32 master, BF16 moments */
    other = run;
    other.recipe.recompute_norm = RECIPE_NO;
    assert_true(plan(&other, 5).activations > m.activations);
    /* q, k and v of 128 heads in BF16, of 11 micro-batches through this rank's layers */
    other = run;
    other.kind = PIPELINE_1F1B;
    n = plan(&other, 5);
    other.recipe.recompute_mla_up = RECIPE_NO;
    assert_int_equal(plan(&other, 5).activations - n.activations,
                     2ull * 128 * (192 + 192 + 128) * 4096 * 11 * n.layers[0]);
    other = run;
    other.recipe.swiglu_input = PRECISION_BF16;
    assert_true(plan(&other, 5).activations > m.activations);
    other = run;
    other.kind = PIPELINE_1F1B; /* index r keeps P - r micro-batches */
    for (uint32_t i = 0; i < 16; i++) {
        assert_int_equal(plan(&other, i).passes, 16 - i);
    }
}

static void test_meshes(void **state)
{
    (void)state;
    struct plan_run run = published_run();
    struct plan_memory most;
    struct err err = {0};
    run.pipeline = run.expert = 0;
    assert_int_equal(plan_mesh(&run, 2048, 15360, 80000000000u, &err), 0);
    assert_int_equal(run.pipeline * run.expert * run.data, 2048);
    assert_int_equal(run.micros * run.expert * run.data, 15360);
    assert_int_equal(plan_memory_most(&run, &most, &err), 0);
    assert_true(most.total <= 80000000000u);

    run = published_run();
    run.pipeline = run.expert = 0;
    assert_int_equal(plan_mesh(&run, 64, 15360, 80000000000u, &err), ERR_CONFIG);
    assert_non_null(strstr(err.text, "nearest and needs"));
    assert_int_equal(plan_mesh(&run, 2047, 15360, 80000000000u, &err), ERR_CONFIG);
    assert_non_null(strstr(err.text, "no mesh divides 2047 GPUs"));
    run.pipeline = 7;
    assert_int_equal(plan_mesh(&run, 2048, 15360, 80000000000u, &err), ERR_CONFIG);

    run = published_run();
    run.pipeline = 40; /* 80 stages of 61 layers */
    assert_int_equal(plan_memory(&run, 0, &most, &err), ERR_CONFIG);
    run = published_run();
    assert_int_equal(plan_memory(&run, 16, &most, &err), ERR_CONFIG);
    run.micros = 31; /* DualPipeV wants two for each rank */
    assert_int_equal(plan_memory(&run, 0, &most, &err), ERR_CONFIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_mesh_fits),
        cmocka_unit_test(test_published_figures),
        cmocka_unit_test(test_params_are_the_models),
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_choices_cost_what_they_should),
        cmocka_unit_test(test_meshes),
    };
    random_start("test_plan");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
