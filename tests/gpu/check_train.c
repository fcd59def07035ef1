/* A small model of V3's shape trained on both back ends from the same weights and tokens: the same
 * losses within half a percent, as means of ten steps; and a run taken up from a snapshot halfway
 * ends in the same bits. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/mem.h"
#include "tests/gpu/check.h"
#include "tests/gpu/trained.h"

/* Of means, because a router's choice turns on the last bit of a score, and a single step's loss of
 * a few hundred tokens feels it: the CPU back end against itself with its products disturbed by
 * 1e-7 differs by up to 6e-3 in a step of the FP8 run, and by up to 2.3e-3 in such a mean. */
#define LOSS_BOUND 5e-3
#define WINDOW     10

struct lesson {
    struct model_config config;
    enum precision precision;
    uint32_t micro_batch, sequence_length, steps;
    int32_t *tokens; /* of all steps */
};

static const int32_t *tokens_of(const struct lesson *l, uint32_t step)
{
    return l->tokens + (size_t)(step - 1) * l->micro_batch * (l->sequence_length + 1);
}

/* Each token but for noise follows from the one before it, so that there is something to learn. */
static void draw_tokens(struct lesson *l)
{
    uint32_t vocab = l->config.vocab_size, length = l->sequence_length + 1;
    size_t count = (size_t)l->steps * l->micro_batch * length;
    l->tokens = mem_alloc_array(count, sizeof *l->tokens);
    for (size_t i = 0; i < count; i++) {
        bool fresh = i % length == 0 || check_below(8) == 0;
        l->tokens[i] = fresh ? (int32_t)check_below(vocab)
                             : (int32_t)(((uint32_t)l->tokens[i - 1] * 5 + 3) % vocab);
    }
}

/* Steps first to the last; losses by step from 1. */
static void run(struct trained *t, const struct lesson *l, uint32_t first, double *loss,
                struct snapshot *halfway)
{
    for (uint32_t step = first; step <= l->steps; step++) {
        loss[step] = trained_step(t, tokens_of(l, step), step);
        if (halfway != NULL && step == l->steps / 2) {
            *halfway = trained_save(t);
        }
    }
}

static void create(struct trained *t, const struct op_table *op, const struct lesson *l)
{
    trained_create(t, op, &l->config, l->precision, l->micro_batch, l->sequence_length, NULL);
}

/* Bits of the losses and of all weights and moments. */
static void check_resume(const struct lesson *l, const struct snapshot *halfway,
                         const struct snapshot *end, const double *loss)
{
    struct trained t;
    double *again = mem_alloc_array(l->steps + 1, sizeof *again);
    create(&t, check.gpu, l);
    trained_load(&t, halfway);
    uint32_t first = l->steps / 2 + 1;
    run(&t, l, first, again, NULL);
    struct snapshot s = trained_save(&t);
    check_bytes("losses after a resume", again + first, loss + first,
                (l->steps + 1 - first) * sizeof *loss);
    check_bytes("weights and moments after a resume", s.data, end->data,
                end->count * sizeof *end->data);
    free(s.data);
    free(again);
    trained_destroy(&t);
}

static void check_lesson(struct lesson *l, const char *name)
{
    struct trained t;
    struct snapshot halfway = {0};
    double worst = 0;
    double *cpu = mem_alloc_array(l->steps + 1, sizeof *cpu);
    double *gpu = mem_alloc_array(l->steps + 1, sizeof *gpu);
    draw_tokens(l);
    create(&t, check.cpu, l);
    run(&t, l, 1, cpu, NULL);
    trained_destroy(&t);
    create(&t, check.gpu, l);
    run(&t, l, 1, gpu, &halfway);
    struct snapshot end = trained_save(&t);
    trained_destroy(&t);
    for (uint32_t from = 1; from <= l->steps; from += WINDOW) {
        double here = 0, there = 0;
        for (uint32_t step = from; step < from + WINDOW && step <= l->steps; step++) {
            here += gpu[step];
            there += cpu[step];
        }
        double off = fabs(here - there) / there;
        worst = off <= worst ? worst : off; /* NaN is the worst */
    }
    printf("  %s, %u steps: loss %.4f to %.4f, on the CPU to %.4f; ten steps furthest apart %.2e\n",
           name, l->steps, gpu[1], gpu[l->steps], cpu[l->steps], worst);
    check_true("losses of both back ends within 0.5 %", worst <= LOSS_BOUND);
    check_true("the loss falls", gpu[l->steps] < gpu[1] || l->steps < 20);
    check_resume(l, &halfway, &end, gpu);
    free(halfway.data);
    free(end.data);
    free(cpu);
    free(gpu);
    free(l->tokens);
}

void check_train(void)
{
    static const struct {
        const char *name;
        enum precision precision;
    } list[] = {{"FP32", PRECISION_FP32}, {"BF16", PRECISION_BF16}, {"FP8", PRECISION_FP8}};
    uint32_t much = check.large ? 1 : 0;
    struct lesson l = {
        .micro_batch = much ? 8 : 1, .sequence_length = much ? 32 : 4, .steps = much ? 100 : 2};
    l.config = trained_config((struct model_config){.vocab_size = much ? 200 : 12,
                                                    .hidden_size = much ? 160 : 16,
                                                    .intermediate_size = much ? 256 : 12,
                                                    .moe_intermediate_size = much ? 64 : 8,
                                                    .num_hidden_layers = 2,
                                                    .first_k_dense_replace = 1,
                                                    .num_attention_heads = 2,
                                                    .q_lora_rank = much ? 48 : 8,
                                                    .kv_lora_rank = much ? 32 : 8,
                                                    .qk_nope_head_dim = much ? 32 : 4,
                                                    .qk_rope_head_dim = much ? 16 : 2,
                                                    .v_head_dim = much ? 32 : 4,
                                                    .n_routed_experts = 8,
                                                    .n_shared_experts = 1,
                                                    .num_experts_per_tok = 2,
                                                    .n_group = 4,
                                                    .topk_group = 2,
                                                    .num_nextn_predict_layers = much});
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        l.precision = list[i].precision;
        check_lesson(&l, list[i].name);
    }
}
