#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/trainer/model_fixture.h"
#include "trainer/tensor_list.h"

static void check(const struct tensor_list *list, const char *name, uint32_t rows, uint32_t cols,
                  bool is_vector, int32_t expert, bool recipe)
{
    const struct tensor *t = tensor_list_find(list, name);
    if (t == NULL) {
        fail_msg("%s is not in the list", name);
        return;
    }
    assert_string_equal(t->name, name);
    assert_int_equal(t->rows, rows);
    assert_int_equal(t->cols, cols);
    assert_int_equal(t->is_vector, is_vector);
    assert_int_equal(t->expert, expert);
    assert_int_equal(t->kind == TENSOR_RECIPE, recipe);
}

/* The list is what the model of the same configuration holds: parameters and balancing biases, by
 * name, shape and kind; and it has as many elements as the configuration counts. */
static void test_is_the_model(void **state)
{
    (void)state;
    random_start("tensor list");
    for (int round = 0; round < 60; round++) {
        struct model_config config = fixture_config();
        if (round % 8 == 0) {
            config.n_routed_experts = 0;
            config.first_k_dense_replace = config.num_hidden_layers;
        }
        struct mesh mesh = fixture_mesh();
        struct comm *self = comm_self_create();
        struct model_options options = {.config = &config,
                                        .op = op_cpu(1),
                                        .mesh = &mesh,
                                        .expert_comm = self,
                                        .precision = PRECISION_FP32,
                                        .micro_batch = 1,
                                        .sequence_length = 4};
        struct model *model;
        struct err err = {0};
        if (model_create(&model, &options, &err) != 0) {
            fail_msg("%s", err.text);
        }
        struct tensor_list list;
        tensor_list_init(&list, &config);
        size_t param_count, router_count;
        const struct param *params = model_params(model, &param_count);
        const struct router *routers = model_routers(model, &router_count);
        assert_int_equal(list.count, param_count + router_count);
        for (size_t i = 0; i < param_count; i++) {
            check(&list, params[i].name, params[i].rows, params[i].cols, params[i].is_vector,
                  params[i].expert, params[i].quantised);
        }
        for (size_t i = 0; i < router_count; i++) {
            check(&list, routers[i].name, routers[i].experts, 1, true, -1, false);
            assert_int_equal(tensor_list_find(&list, routers[i].name)->kind, TENSOR_BIAS);
        }
        uint64_t elements = 0;
        for (size_t i = 0; i < list.count; i++) {
            elements += tensor_elements(&list.item[i]);
        }
        assert_int_equal(elements,
                         model_config_params_total(&config) + model_config_params_mtp(&config));
        assert_null(tensor_list_find(&list, "model.nothing.weight"));
        assert_null(tensor_list_find(&list, ""));
        tensor_list_fini(&list);
        model_destroy(model);
        comm_destroy(self);
    }
}

/* DeepSeek-V3's own configuration has the published count of tensors (reference 8.2: 91,991 with a
 * scale for each FP8 matrix, and with the MTP layer's copies of embedding and head), named and
 * shaped as published. */
static void test_published(void **state)
{
    (void)state;
    struct model_config config;
    struct tensor_list list;
    assert_int_equal(model_config_parse(&config, "{}", 2, "defaults", NULL), 0);
    tensor_list_init(&list, &config);
    size_t with_scales = list.count + 2;
    for (size_t i = 0; i < list.count; i++) {
        with_scales += list.item[i].kind == TENSOR_RECIPE;
    }
    assert_int_equal(with_scales, 91991);
    check(&list, "model.embed_tokens.weight", 129280, 7168, false, -1, false);
    check(&list, "lm_head.weight", 129280, 7168, false, -1, false);
    check(&list, "model.norm.weight", 7168, 1, true, -1, false);
    check(&list, "model.layers.0.self_attn.q_a_proj.weight", 1536, 7168, false, -1, true);
    check(&list, "model.layers.60.self_attn.q_b_proj.weight", 24576, 1536, false, -1, true);
    check(&list, "model.layers.3.self_attn.kv_a_proj_with_mqa.weight", 576, 7168, false, -1, true);
    check(&list, "model.layers.3.self_attn.kv_b_proj.weight", 32768, 512, false, -1, true);
    check(&list, "model.layers.3.self_attn.o_proj.weight", 7168, 16384, false, -1, true);
    check(&list, "model.layers.2.mlp.down_proj.weight", 7168, 18432, false, -1, true);
    check(&list, "model.layers.3.mlp.gate.weight", 256, 7168, false, -1, false);
    check(&list, "model.layers.3.mlp.experts.255.down_proj.weight", 7168, 2048, false, 255, true);
    check(&list, "model.layers.61.mlp.shared_experts.gate_proj.weight", 2048, 7168, false, -1,
          true);
    check(&list, "model.layers.61.eh_proj.weight", 7168, 14336, false, -1, false);
    check(&list, "model.layers.61.shared_head.norm.weight", 7168, 1, true, -1, false);
    assert_null(tensor_list_find(&list, "model.layers.2.mlp.gate.weight"));
    assert_null(tensor_list_find(&list, "model.layers.62.enorm.weight"));
    tensor_list_fini(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_is_the_model),
        cmocka_unit_test(test_published),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
