#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "proto/model_config.h"
#include "tests/unit/random.h"

/* DeepSeek-V3's published file, its keys that have no bearing on the model included. */
static const char published[] =
    "{\n"
    "  \"architectures\": [\"DeepseekV3ForCausalLM\"],\n"
    "  \"attention_bias\": false, \"attention_dropout\": 0.0,\n"
    "  \"auto_map\": {\"AutoConfig\": \"configuration_deepseek.DeepseekV3Config\"},\n"
    "  \"aux_loss_alpha\": 0.001, \"bos_token_id\": 0, \"eos_token_id\": 1, \"ep_size\": 1,\n"
    "  \"first_k_dense_replace\": 3, \"hidden_act\": \"silu\", \"hidden_size\": 7168,\n"
    "  \"initializer_range\": 0.02, \"intermediate_size\": 18432, \"kv_lora_rank\": 512,\n"
    "  \"max_position_embeddings\": 163840, \"model_type\": \"deepseek_v3\",\n"
    "  \"moe_intermediate_size\": 2048, \"moe_layer_freq\": 1, \"n_group\": 8,\n"
    "  \"n_routed_experts\": 256, \"n_shared_experts\": 1, \"norm_topk_prob\": true,\n"
    "  \"num_attention_heads\": 128, \"num_experts_per_tok\": 8, \"num_hidden_layers\": 61,\n"
    "  \"num_key_value_heads\": 128, \"num_nextn_predict_layers\": 1, \"pretraining_tp\": 1,\n"
    "  \"q_lora_rank\": 1536, \"qk_nope_head_dim\": 128, \"qk_rope_head_dim\": 64,\n"
    "  \"quantization_config\": {\"activation_scheme\": \"dynamic\", \"fmt\": \"e4m3\",\n"
    "    \"quant_method\": \"fp8\", \"weight_block_size\": [128, 128]},\n"
    "  \"rms_norm_eps\": 1e-06,\n"
    "  \"rope_scaling\": {\"beta_fast\": 32, \"beta_slow\": 1, \"factor\": 40, \"mscale\": 1.0,\n"
    "    \"mscale_all_dim\": 1.0, \"original_max_position_embeddings\": 4096, \"type\": "
    "\"yarn\"},\n"
    "  \"rope_theta\": 10000, \"routed_scaling_factor\": 2.5, \"scoring_func\": \"sigmoid\",\n"
    "  \"seq_aux\": true, \"tie_word_embeddings\": false, \"topk_group\": 4,\n"
    "  \"topk_method\": \"noaux_tc\", \"torch_dtype\": \"bfloat16\",\n"
    "  \"transformers_version\": \"4.33.1\", \"use_cache\": true, \"v_head_dim\": 128,\n"
    "  \"vocab_size\": 129280\n"
    "}\n";

static int parse(struct model_config *c, const char *json, struct err *err)
{
    *err = (struct err){0};
    return model_config_parse(c, json, strlen(json), "config.json", err);
}

/* The published model: every value, and the published parameter counts (reference deepseek-v3
 * §1.1). */
static void test_published(void **state)
{
    (void)state;
    struct model_config c;
    struct err err;
    parse(&c, published, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(c.vocab_size, 129280);
    assert_int_equal(c.hidden_size, 7168);
    assert_int_equal(c.q_lora_rank, 1536);
    assert_int_equal(c.max_position_embeddings, 163840);
    assert_true(c.norm_topk_prob && !c.tie_word_embeddings);
    assert_true(c.routed_scaling_factor == 2.5 && c.rms_norm_eps == 1e-6 && c.rope_theta == 10000);
    assert_true(c.rope.yarn && c.rope.factor == 40 && c.rope.mscale == 1 &&
                c.rope.mscale_all_dim == 1);
    assert_true(c.rope.beta_fast == 32 && c.rope.beta_slow == 1);
    assert_int_equal(c.rope.original_max_position_embeddings, 4096);
    assert_int_equal(model_config_params_total(&c), 671026419200);
    /* 37.55e9 with embedding and head, 36.63e9 without the embedding's look-up */
    assert_int_equal(model_config_params_active(&c), 37552297472);
    assert_int_equal(model_config_params_active(&c) - 129280ull * 7168, 36625618432);
    assert_int_equal(model_config_params_mtp(&c), 11610068224); /* 11.61e9 */
    assert_false(model_config_is_moe(&c, 2));
    assert_true(model_config_is_moe(&c, 3));
}

/* An empty object is DeepseekV3Config's defaults; null where it means something. */
static void test_defaults(void **state)
{
    (void)state;
    struct model_config c;
    struct err err;
    assert_int_equal(parse(&c, "{}", &err), 0);
    assert_int_equal(model_config_params_total(&c), 671026419200);
    assert_int_equal(c.max_position_embeddings, 4096);
    assert_false(c.rope.yarn);
    assert_int_equal(c.bos_token_id, 0);
    parse(&c,
          "{\"q_lora_rank\": null, \"bos_token_id\": null, \"eos_token_id\": [5, 6], "
          "\"rope_scaling\": null, \"vocab_size\": 300}",
          &err);
    assert_string_equal(err.text, "");
    assert_int_equal(c.q_lora_rank, 0);
    assert_int_equal(c.bos_token_id, -1);
    assert_int_equal(c.eos_token_id, 5);
    parse(&c, "{\"n_routed_experts\": null, \"num_hidden_layers\": 5, \"n_group\": 7}", &err);
    assert_string_equal(err.text, "");
    assert_int_equal(c.first_k_dense_replace, 5);
    assert_false(model_config_is_moe(&c, 4));
    assert_int_equal(model_config_params_active(&c), model_config_params_total(&c));
}

/* Parameters of a model small enough to count by hand. */
static void test_count(void **state)
{
    (void)state;
    struct model_config c;
    struct err err;
    parse(&c,
          "{\"vocab_size\": 10, \"hidden_size\": 4, \"intermediate_size\": 6, "
          "\"moe_intermediate_size\": 3, \"num_hidden_layers\": 2,"
          " \"first_k_dense_replace\": 1, \"num_attention_heads\": 2, \"q_lora_rank\": null, "
          "\"kv_lora_rank\": 5, \"qk_nope_head_dim\": 3,"
          " \"qk_rope_head_dim\": 2, \"v_head_dim\": 3, \"n_routed_experts\": 4, "
          "\"n_shared_experts\": 1, \"num_experts_per_tok\": 2,"
          " \"n_group\": 2, \"topk_group\": 1, \"tie_word_embeddings\": true, "
          "\"num_nextn_predict_layers\": 1}",
          &err);
    assert_string_equal(err.text, "");
    uint64_t q = 2 * (3 + 2) * 4;
    uint64_t kv = (5 + 2) * 4 + 5 + 2 * (3 + 3) * 5;
    uint64_t o = 4 * 2 * 3;
    uint64_t attention = q + kv + o + 2 * 4;
    uint64_t expert = 3 * 4 * 3;
    uint64_t dense = attention + 3 * 4 * 6;
    uint64_t moe = attention + 4 * 4 + 4 + 5 * expert;
    assert_int_equal(model_config_params_total(&c), 10 * 4 + dense + moe + 4);
    assert_int_equal(model_config_params_active(&c), 10 * 4 + dense + moe - 2 * expert + 4);
    assert_int_equal(model_config_params_mtp(&c), moe + 2 * 4 * 4 + 3 * 4);
}

/* The newer spelling of rope scaling means the same. */
static void test_rope_parameters(void **state)
{
    (void)state;
    struct model_config c;
    struct err err;
    parse(&c, "{\"rope_parameters\": {\"rope_theta\": 500000.0, \"rope_type\": \"default\"}}",
          &err);
    assert_string_equal(err.text, "");
    assert_true(c.rope_theta == 500000 && !c.rope.yarn);
    parse(&c,
          "{\"rope_parameters\": {\"rope_theta\": 10000, \"rope_type\": \"yarn\", \"factor\": 4, "
          "\"original_max_position_embeddings\": 2048}}",
          &err);
    assert_string_equal(err.text, "");
    assert_true(c.rope.yarn && c.rope.factor == 4 && c.rope.beta_fast == 32 &&
                c.rope.beta_slow == 1);
    assert_true(c.rope.mscale == 1 && c.rope.mscale_all_dim == 0);
}

/* Impossible values and what this trainer does not follow are refused with the place, the key, the
 * value and what is allowed. */
static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *json, *message;
    } cases[] = {
        {"{\"n_group\": 3}",
         "config.json:1:13: key 'n_group': n_group 3 does not divide n_routed_experts 256"},
        {"{\"n_group\": 256}", "config.json:1:13: key 'n_group': n_group 256 leaves groups of 1 "
                               "expert (allowed: 1 to 128; a group's score is "
                               "the sum of its two best)"},
        {"{\"topk_group\": 9}",
         "config.json:1:16: key 'topk_group': topk_group 9 is over n_group 8 (allowed: 1 to 8)"},
        {"{\"num_experts_per_tok\": 129}", "config.json:1:25: key 'num_experts_per_tok': "
                                           "num_experts_per_tok 129 of the 128 experts in 4 of 8 "
                                           "groups (allowed: 1 to 128)"},
        {"{\"n_routed_experts\": 16, \"n_group\": 8, \"topk_group\": 2}",
         "config.json:1:1: num_experts_per_tok 8 of the 4 experts in 2 of 8 groups (allowed: 1 to "
         "4)"},
        {"{\"first_k_dense_replace\": 62}", "config.json:1:27: key 'first_k_dense_replace': "
                                            "first_k_dense_replace 62 is over num_hidden_layers "
                                            "61"},
        {"{\"qk_rope_head_dim\": 7}", "config.json:1:22: key 'qk_rope_head_dim': 7 is odd "
                                      "(allowed: even numbers; pairs are rotated)"},
        {"{\"num_attention_heads\": 0}",
         "config.json:1:25: key 'num_attention_heads': 0 is out of range (allowed: 1 to 4096)"},
        {"{\"num_key_value_heads\": 8}", "config.json:1:25: key 'num_key_value_heads': 8 differs "
                                         "from num_attention_heads (allowed: 128)"},
        {"{\"hidden_size\": 99999999}",
         "config.json:1:17: key 'hidden_size': 99999999 is out of range (allowed: 1 to 131072)"},
        {"{\"hidden_size\": -1}",
         "config.json:1:17: key 'hidden_size': -1 is out of range (allowed: 1 to 131072)"},
        {"{\"hidden_size\": \"big\"}", "config.json:1:17: key 'hidden_size': text in quotes is not "
                                       "a whole number (allowed: 1 to 131072)"},
        {"{\"hidden_size\": 10.5}",
         "config.json:1:17: key 'hidden_size': 10.5 is not a whole number (allowed: 1 to 131072)"},
        {"{\"vocab_size\": 100, \"eos_token_id\": 100}",
         "config.json:1:37: key 'eos_token_id': eos_token_id is outside the vocabulary (allowed: "
         "below 100)"},
        {"{\"hidden_act\": \"gelu\"}",
         "config.json:1:16: key 'hidden_act': gelu is not one of them (allowed: silu)"},
        {"{\"scoring_func\": \"softmax\"}",
         "config.json:1:18: key 'scoring_func': softmax is not one of them (allowed: sigmoid)"},
        {"{\"topk_method\": \"greedy\"}",
         "config.json:1:17: key 'topk_method': greedy is not one of them (allowed: noaux_tc)"},
        {"{\"model_type\": \"llama\"}", "config.json:1:16: key 'model_type': llama is not one of "
                                        "them (allowed: deepseek_v3, kimi_k2)"},
        {"{\"attention_bias\": true}",
         "config.json:1:20: key 'attention_bias': true is not one of them (allowed: false)"},
        {"{\"attention_dropout\": 0.1}",
         "config.json:1:23: key 'attention_dropout': 0.1 is out of range (allowed: 0 to 0)"},
        {"{\"moe_layer_freq\": 2}",
         "config.json:1:20: key 'moe_layer_freq': 2 is out of range (allowed: 1 to 1)"},
        {"{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}}",
         "config.json:1:27: key 'rope_scaling.type': linear is not one of them "
         "(allowed: default, yarn)"},
        {"{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2}}",
         "config.json:1:18: key 'rope_scaling': yarn needs factor and "
         "original_max_position_embeddings"},
        {"{\"rope_scaling\": {\"factor\": 2}}",
         "config.json:1:18: key 'rope_scaling': 'type' is missing (allowed: default, yarn)"},
        {"{\"rope_scaling\": [1]}",
         "config.json:1:18: key 'rope_scaling': a list where a map is expected (key: value lines)"},
        {"{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2, "
         "\"original_max_position_embeddings\": 4, \"beta_fast\": 1}}",
         "config.json:1:18: key 'rope_scaling': beta_fast 1 is not over beta_slow 1"},
        {"[]", "config.json: not a JSON object"},
        {"", "config.json:1:0: not JSON: '[' or '{' expected near end of file"},
        {"{\"a\": 1,}", "config.json:1:9: not JSON: string or '}' expected near '}'"},
        {"{\"a\": 1, \"a\": 2}", "config.json:1:12: not JSON: duplicate object key near '\"a\"'"},
        {"{\"rope_theta\": NaN}", "config.json:1:18: not JSON: invalid token near 'NaN'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct model_config c;
        struct err err;
        int rc = parse(&c, cases[i].json, &err);
        assert_string_equal(err.text, cases[i].message);
        assert_int_equal(rc, ERR_INVALID);
    }
    /* a slip in a key that would leave its default in force unseen */
    struct model_config c;
    struct err err;
    assert_int_equal(parse(&c, "{\"num_hiden_layers\": 2}", &err), ERR_INVALID);
    assert_non_null(
        strstr(err.text, "key 'num_hiden_layers': unknown, did you mean 'num_hidden_layers'?"));
    assert_int_equal(parse(&c, "{\"a_new_key\": 2, \"another\": {\"deep\": [1]}}", &err), 0);
}

static uint32_t up_to(uint32_t max)
{
    return 1 + (uint32_t)random_below(max);
}

/* What is written parses back to the same values, for random possible models, and no count
 * overflows on the way. */
static void test_round_trip(void **state)
{
    (void)state;
    random_start("model config round trip");
    for (int i = 0; i < 2000; i++) {
        struct model_config c = {.vocab_size = 1 + up_to(16777215),
                                 .hidden_size = up_to(131072),
                                 .intermediate_size = up_to(131072),
                                 .moe_intermediate_size = up_to(131072),
                                 .num_hidden_layers = up_to(2048),
                                 .num_attention_heads = up_to(4096),
                                 .q_lora_rank = random_one_in(4) ? 0 : up_to(131072),
                                 .kv_lora_rank = up_to(131072),
                                 .qk_nope_head_dim = up_to(4096),
                                 .qk_rope_head_dim = 2 * up_to(2048),
                                 .v_head_dim = up_to(4096),
                                 .n_shared_experts = (uint32_t)random_below(65),
                                 .norm_topk_prob = random_one_in(2),
                                 .routed_scaling_factor = 0.5 + (double)up_to(1000) / 7,
                                 .rms_norm_eps = 1e-6,
                                 .rope_theta = 10000 + (double)up_to(1000) / 3,
                                 .max_position_embeddings = up_to(1u << 30),
                                 .num_nextn_predict_layers = (uint32_t)random_below(17),
                                 .initializer_range = (double)random_below(1000) / 997,
                                 .tie_word_embeddings = random_one_in(2),
                                 .bos_token_id = random_one_in(3) ? -1 : 0,
                                 .eos_token_id = random_one_in(3) ? -1 : 1};
        c.n_group = up_to(64);
        c.n_routed_experts = c.n_group * (1 + up_to(16384 / c.n_group - 1));
        c.topk_group = up_to(c.n_group);
        c.num_experts_per_tok = up_to(c.topk_group * (c.n_routed_experts / c.n_group));
        c.first_k_dense_replace = (uint32_t)random_below(c.num_hidden_layers + 1);
        if (random_one_in(2)) {
            c.rope.yarn = true;
            c.rope.factor = 1 + (double)up_to(100) / 3;
            c.rope.beta_fast = 32.5;
            c.rope.beta_slow = 0.1;
            c.rope.mscale = 1.25;
            c.rope.mscale_all_dim = (double)random_below(3);
            c.rope.original_max_position_embeddings = up_to(100000);
        }
        struct model_config again;
        struct err err;
        char *json = model_config_to_json(&c);
        parse(&again, json, &err);
        assert_string_equal(err.text, "");
        char *json_again = model_config_to_json(&again);
        assert_string_equal(json, json_again);
        assert_int_equal(again.n_routed_experts, c.n_routed_experts);
        assert_true(again.rope_theta == c.rope_theta && again.rope.factor == c.rope.factor);
        assert_true(model_config_params_total(&c) < (uint64_t)1 << 62);
        assert_true(model_config_params_active(&c) <= model_config_params_total(&c));
        free(json);
        free(json_again);
    }
    struct model_config largest = {.vocab_size = 16777216,
                                   .hidden_size = 131072,
                                   .intermediate_size = 131072,
                                   .moe_intermediate_size = 131072,
                                   .num_hidden_layers = 2048,
                                   .num_attention_heads = 4096,
                                   .q_lora_rank = 131072,
                                   .kv_lora_rank = 131072,
                                   .qk_nope_head_dim = 4096,
                                   .qk_rope_head_dim = 4096,
                                   .v_head_dim = 4096,
                                   .n_routed_experts = 16384,
                                   .n_shared_experts = 64,
                                   .num_experts_per_tok = 1,
                                   .n_group = 1,
                                   .topk_group = 1,
                                   .num_nextn_predict_layers = 16};
    double expected = 2048.0 * (16384 + 64) * 3 * 131072 * 131072;
    assert_true((double)model_config_params_total(&largest) > expected);
    assert_true((double)model_config_params_total(&largest) < expected * 1.1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published), cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_count),     cmocka_unit_test(test_rope_parameters),
        cmocka_unit_test(test_refused),   cmocka_unit_test(test_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
