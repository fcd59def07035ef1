#include "tests/gpu/bench_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "lib/mem.h"
#include "proto/plan_run.h"
#include "tests/gpu/trained.h"

#define TOKENS 4096
#define WARM   2
#define TIMES  7

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int by_size(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* The back end's stream is empty when a number of it has arrived. */
static void wait(const struct op_table *op, const float *number)
{
    float host;
    op->copy_to_host(&host, number, sizeof host);
}

static struct model_config v3_layers(uint32_t layers)
{
    return trained_config((struct model_config){.vocab_size = 128,
                                                .hidden_size = 7168,
                                                .intermediate_size = 18432,
                                                .moe_intermediate_size = 2048,
                                                .num_hidden_layers = layers,
                                                .num_attention_heads = 128,
                                                .q_lora_rank = 1536,
                                                .kv_lora_rank = 512,
                                                .qk_nope_head_dim = 128,
                                                .qk_rope_head_dim = 64,
                                                .v_head_dim = 128,
                                                .n_routed_experts = 4,
                                                .n_shared_experts = 1,
                                                .num_experts_per_tok = 4});
}

static void fill(const struct op_table *op, struct mat m)
{
    float *host = mem_alloc_array(m.rows * m.cols, sizeof *host);
    for (size_t i = 0; i < m.rows * m.cols; i++) {
        host[i] = (float)((double)rand() / RAND_MAX * 2 - 1);
    }
    for (size_t r = 0; r < m.rows; r++) {
        op->copy_from_host(m.data + r * m.ld, host + r * m.cols, m.cols * sizeof *host);
    }
    free(host);
}

void bench_layer(const struct op_table *op, double peak)
{
    /* The middle one of three: without embedding and head. */
    struct model_config three = v3_layers(3), two = v3_layers(2);
    const struct model_stage middle = {.first_layer = 1, .layers = 1, .slots = 1};
    const struct model_pass pass = {.gradient = true, .grad_scale = 1};
    struct model_losses sums = {0};
    struct err err = {0};
    struct trained t;
    double s[TIMES];
    trained_create(&t, op, &three, PRECISION_FP8, 1, TOKENS, &middle);
    for (int i = -WARM; i < TIMES; i++) {
        fill(op, model_input(t.model, 0, 0));
        double from = now();
        int rc = model_forward(t.model, &pass, NULL, &sums, &err);
        wait(op, model_output(t.model, 0, 0).data);
        double between = now();
        fill(op, model_gradient(t.model, 0, 0));
        wait(op, model_gradient(t.model, 0, 0).data);
        double again = now();
        rc = rc == 0 ? model_backward(t.model, &pass, &err) : rc;
        wait(op, model_gradient(t.model, 0, 0).data);
        if (rc != 0) {
            fprintf(stderr, "layer: %s\n", err.text);
            exit(1);
        }
        if (i >= 0) {
            s[i] = between - from + now() - again;
        }
    }
    qsort(s, TIMES, sizeof *s, by_size);
    double flop = plan_flops_per_token(&three, TOKENS) - plan_flops_per_token(&two, TOKENS);
    double rate = flop * TOKENS / s[TIMES / 2];
    printf("V3's MoE layer, 4 experts of 4096 rows, 4096 tokens: %.1f ms, %.0f TFLOP/s, %.3f of "
           "BF16 peak (causal FLOPs, forward and backward)\n",
           s[TIMES / 2] * 1e3, rate / 1e12, rate / peak);
    fflush(stdout);
    trained_destroy(&t);
}

void bench_model(const struct op_table *op, double peak)
{
    struct model_config config = trained_config((struct model_config){.vocab_size = 32768,
                                                                      .hidden_size = 2048,
                                                                      .intermediate_size = 6144,
                                                                      .moe_intermediate_size = 768,
                                                                      .num_hidden_layers = 12,
                                                                      .first_k_dense_replace = 1,
                                                                      .num_attention_heads = 16,
                                                                      .q_lora_rank = 768,
                                                                      .kv_lora_rank = 512,
                                                                      .qk_nope_head_dim = 128,
                                                                      .qk_rope_head_dim = 64,
                                                                      .v_head_dim = 128,
                                                                      .n_routed_experts = 32,
                                                                      .n_shared_experts = 1,
                                                                      .num_experts_per_tok = 4,
                                                                      .n_group = 4,
                                                                      .topk_group = 2});
    struct trained t;
    double s[TIMES], loss = 0;
    int32_t *tokens = mem_alloc_array(TOKENS + 1, sizeof *tokens);
    trained_create(&t, op, &config, PRECISION_FP8, 1, TOKENS, NULL);
    for (int i = -WARM; i < TIMES; i++) {
        for (int j = 0; j <= TOKENS; j++) {
            tokens[j] = rand() % (int32_t)config.vocab_size;
        }
        double from = now();
        loss = trained_step(&t, tokens, (uint64_t)(i + WARM + 1));
        wait(op, model_output(t.model, 0, 0).data);
        if (i >= 0) {
            s[i] = now() - from;
        }
    }
    qsort(s, TIMES, sizeof *s, by_size);
    double rate = plan_flops_per_token(&config, TOKENS) * TOKENS / s[TIMES / 2];
    printf("model of %.2f thousand million parameters (%.2f active), a step of 4096 tokens: %.1f "
           "ms, %.0f tokens/s, MFU %.3f of the measured BF16 peak, %.3f of 989.4 TFLOP/s (loss "
           "%.2f)\n",
           (double)model_config_params_total(&config) / 1e9,
           (double)model_config_params_active(&config) / 1e9, s[TIMES / 2] * 1e3,
           TOKENS / s[TIMES / 2], rate / peak, rate / PLAN_PEAK_FLOPS, loss);
    free(tokens);
    trained_destroy(&t);
}
