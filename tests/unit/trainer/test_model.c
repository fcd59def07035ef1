/* The whole model against the oracle: losses, logits and the gradient of every parameter. */
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
#include "tests/unit/trainer/oracle.h"

static uint64_t base_seed;

struct fixture {
    uint64_t seed;
    struct model_config config;
    struct mesh mesh;
    struct comm *comm;
    struct model_options options;
    struct model *model;
    int32_t *tokens;
};

static void set_up(struct fixture *f, uint64_t seed)
{
    *f = (struct fixture){.seed = seed, .mesh = fixture_mesh(), .comm = comm_self_create()};
    random_state = seed;
    f->config = fixture_config();
    f->options = (struct model_options){
        .config = &f->config,
        .op = op_cpu(1),
        .mesh = &f->mesh,
        .expert_comm = f->comm,
        .precision = PRECISION_FP32,
        .micro_batch = pick(1, 3),
        .sequence_length = pick(3, 9),
        .balance_alpha = pick(0, 3) ? 0.02 : 0,
        .mtp_lambda = pick(0, 3) ? 0.3 : 0,
        .init_std = 0.02,
        .seed = seed,
    };
}

static void create(struct fixture *f)
{
    struct err err = {0};
    if (model_create(&f->model, &f->options, &err) != 0) {
        fail_msg("%s", err.text);
    }
    fixture_fill(f->model, f->seed);
    f->tokens = fixture_tokens(&f->options);
}

static void tear_down(struct fixture *f)
{
    model_destroy(f->model);
    comm_destroy(f->comm);
    free(f->tokens);
}

static struct oracle oracle_of(const struct fixture *f)
{
    size_t params, routers;
    struct param *p = model_params(f->model, &params);
    struct router *r = model_routers(f->model, &routers);
    struct oracle o = {.c = &f->config,
                       .batch = f->options.micro_batch,
                       .seq = f->options.sequence_length,
                       .alpha = f->options.balance_alpha,
                       .lambda = f->options.mtp_lambda,
                       .tensors = params + routers};
    o.tensor = calloc(o.tensors, sizeof *o.tensor);
    o.logits = o_new(o.batch * o.seq * f->config.vocab_size);
    for (size_t i = 0; i < params + routers; i++) {
        struct oracle_tensor *t = &o.tensor[i];
        const float *value = i < params ? p[i].weight : r[i - params].bias;
        t->count = i < params ? p[i].count : r[i - params].experts;
        snprintf(t->name, sizeof t->name, "%s", i < params ? p[i].name : r[i - params].name);
        t->hash = o_hash(t->name);
        t->value = o_new(t->count);
        for (size_t j = 0; j < t->count; j++) {
            t->value[j] = (double)value[j];
        }
    }
    return o;
}

static void describe(const struct fixture *f)
{
    const struct model_config *c = &f->config;
    printf("  seed %llu: hidden %u layers %u (dense %u) heads %u q_lora %u groups %u/%u experts %u "
           "top %u "
           "shared %u norm %d yarn %d mtp %u tie %d batch %u seq %u alpha %g lambda %g\n",
           (unsigned long long)f->seed, c->hidden_size, c->num_hidden_layers,
           c->first_k_dense_replace, c->num_attention_heads, c->q_lora_rank, c->topk_group,
           c->n_group, c->n_routed_experts, c->num_experts_per_tok, c->n_shared_experts,
           c->norm_topk_prob, c->rope.yarn, c->num_nextn_predict_layers, c->tie_word_embeddings,
           f->options.micro_batch, f->options.sequence_length, f->options.balance_alpha,
           f->options.mtp_lambda);
}

/* Whether FP32 and double are sure to route alike; else the case says nothing about arithmetic. */
static bool routes_alike(const struct oracle *o)
{
    return o->margin > 1e-4;
}

/* d objective / d value by central differences; false where the perturbation changed a routing
 * decision. */
static bool derivative(struct oracle *o, const int32_t *tokens, double *value, double *out)
{
    const double step = 1e-5;
    double kept = *value;
    uint64_t choices = o->choices;
    *value = kept + step;
    double above = oracle_run(o, tokens);
    bool same = o->choices == choices;
    *value = kept - step;
    double below = oracle_run(o, tokens);
    same = same && o->choices == choices;
    *value = kept;
    o->choices = choices;
    *out = (above - below) / (2 * step);
    return same;
}

#define SAMPLES 16 /* elements of each tensor */

/* |difference| / |expected| over sampled elements of a tensor. */
static double gradient_error(struct oracle *o, struct fixture *f, const struct param *p,
                             size_t index, double grad_scale, double floor)
{
    struct oracle_tensor *t = &o->tensor[index];
    double error = 0, norm = 0;
    size_t samples = t->count < SAMPLES ? t->count : SAMPLES;
    for (size_t s = 0; s < samples; s++) {
        size_t j = t->count <= SAMPLES ? s : pick(0, (uint32_t)t->count - 1);
        double expected;
        if (derivative(o, f->tokens, &t->value[j], &expected)) {
            double d = (double)p->grad[j] / grad_scale - expected;
            error += d * d;
            norm += expected * expected;
        }
    }
    return sqrt(error) / (sqrt(norm) + floor);
}

/* A random model may be badly conditioned (a norm over a row that happens to be tiny): a few
 * tensors in a hundred may exceed 1e-4, none 1e-3; a wrong formula is off by far more. */
#define TIGHT 1e-4
#define LOOSE 1e-3

/* The gradient of every parameter agrees with central differences of the oracle, over random
 * shapes. */
static void test_gradients(void **state)
{
    (void)state;
    int checked = 0, tensors = 0, off = 0;
    double worst = 0;
    for (uint64_t i = 0; i < 60 && checked < 16; i++) {
        struct fixture f;
        struct model_losses sums = {0};
        const double grad_scale = 0.125;
        set_up(&f, base_seed + i);
        create(&f);
        struct oracle o = oracle_of(&f);
        double objective = oracle_run(&o, f.tokens);
        if (routes_alike(&o)) {
            size_t count;
            struct param *p = model_params(f.model, &count);
            assert_int_equal(model_train(f.model, f.tokens, grad_scale, &sums, NULL), 0);
            assert_true(fabs(sums.loss - o.loss) < 1e-5 * o.loss);
            assert_true(fabs(sums.mtp_loss - o.mtp_loss) <= 1e-5 * o.mtp_loss);
            assert_true(fabs(sums.balance - o.balance) <= 1e-5 * o.balance);
            assert_int_equal(sums.tokens, f.options.micro_batch * f.options.sequence_length);
            for (size_t k = 0; k < count; k++) {
                double e = gradient_error(&o, &f, &p[k], k, grad_scale, 1e-3 * objective);
                worst = e > worst ? e : worst;
                tensors++;
                off += e > TIGHT;
                if (!(e < LOOSE)) {
                    describe(&f);
                    fail_msg("%s: gradient off by %g", p[k].name, e);
                }
            }
            checked++;
        }
        oracle_fini(&o);
        tear_down(&f);
    }
    printf("  %d tensors of %d models, worst relative error of a gradient %.2g, %d above %g\n",
           tensors, checked, worst, off, TIGHT);
    assert_true(off <= tensors / 50);
    assert_int_equal(checked, 16);
}

/* Logits agree with the oracle, relative to their range, over random shapes. */
static void test_logits(void **state)
{
    (void)state;
    int checked = 0, off = 0;
    for (uint64_t i = 0; i < 200 && checked < 60; i++) {
        struct fixture f;
        set_up(&f, base_seed + 1000 + i);
        create(&f);
        struct oracle o = oracle_of(&f);
        oracle_run(&o, f.tokens);
        if (routes_alike(&o)) {
            size_t count = o.batch * o.seq * f.config.vocab_size;
            float *logits = malloc(count * sizeof *logits);
            double worst = 0, low = INFINITY, high = -INFINITY;
            assert_int_equal(model_logits(f.model, f.tokens, logits, NULL), 0);
            for (size_t j = 0; j < count; j++) {
                worst = fmax(worst, fabs((double)logits[j] - o.logits[j]));
                low = fmin(low, o.logits[j]);
                high = fmax(high, o.logits[j]);
            }
            off += worst > TIGHT * (high - low);
            if (!(worst < LOOSE * (high - low))) {
                describe(&f);
                fail_msg("logits off by %g of a range of %g", worst, high - low);
            }
            free(logits);
            checked++;
        }
        oracle_fini(&o);
        tear_down(&f);
    }
    assert_true(off <= 1);
    assert_int_equal(checked, 60);
}

int main(void)
{
    random_start("test_model");
    base_seed = random_state;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
