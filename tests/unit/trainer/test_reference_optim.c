/* AdamW, clipping and the learning rate against trajectories of torch.optim in FP64
 * (tests/reference/optimiser.py). */
#include "tests/unit/trainer/reference.h"
#include "trainer/grad.h"
#include "trainer/optim.h"
#include "trainer/schedule.h"

/* Where torch clips it divides by norm + 1e-6, which moves a gradient of norm 1 by 1e-6; dstrain
 * divides by the norm. */
#define WEIGHT_TOLERANCE 1e-5 /* relative L2, after each step */
#define MOMENT_TOLERANCE 1e-5
#define NORM_TOLERANCE   1e-6
#define LR_TOLERANCE     1e-12

struct worst {
    double error;
    char on[32];
};

static void worse(struct worst *w, double error, size_t step)
{
    if (!(error <= w->error)) {
        w->error = error;
        snprintf(w->on, sizeof w->on, "step %zu", step);
    }
}

/* Relative L2; where nothing is wanted but zeros, the absolute one. */
static double distance(const float *got, const float *want, size_t n)
{
    double error = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)got[i] - (double)want[i];
        error += d * d;
        norm += (double)want[i] * (double)want[i];
    }
    return sqrt(norm > 0 ? error / norm : error);
}

enum { STEP_TOKENS = 12 };

static uint64_t tokens_at(const struct vectors *v, const char *key)
{
    return STEP_TOKENS * (uint64_t)vectors_fact(v, key);
}

static struct train_spec spec_of(const struct vectors *v)
{
    struct train_spec s = {.sequence_length = 4, .global_batch = STEP_TOKENS / 4};
    s.steps = (uint64_t)vectors_fact(v, "steps");
    s.tokens = tokens_at(v, "steps");
    s.plan.decay_until = tokens_at(v, "decay_until");
    if (s.plan.decay_until > 0) {
        s.plan.tails = 2;
        s.plan.tail[0].until = tokens_at(v, "tail_until");
        s.plan.tail[0].lr = vectors_fact(v, "tail_lr");
        s.plan.tail[1].lr = vectors_fact(v, "last_lr");
    }
    s.optimizer.no_decay = DECAY_NORMS;
    s.recipe.moments = PRECISION_FP32;
    s.optimizer.lr = vectors_fact(v, "lr");
    s.optimizer.lr_min = vectors_fact(v, "lr_min");
    s.optimizer.warmup_steps = (uint64_t)vectors_fact(v, "warmup_steps");
    s.optimizer.constant_steps = (uint64_t)vectors_fact(v, "constant_steps");
    s.optimizer.beta1 = vectors_fact(v, "beta1");
    s.optimizer.beta2 = vectors_fact(v, "beta2");
    s.optimizer.eps = vectors_fact(v, "eps");
    s.optimizer.weight_decay = vectors_fact(v, "weight_decay");
    s.optimizer.grad_clip = vectors_fact(v, "grad_clip");
    return s;
}

enum { WEIGHT, M, V, KINDS };
static const char *const kind_name[KINDS] = {"weight", "m", "v"};

/* The optimiser's state and weights after `step` against the vectors. */
static void compare(struct worst worst[KINDS], const struct optim *o, float *const want[KINDS],
                    size_t n, size_t step)
{
    for (size_t p = 0, first = 0; p < o->parts; first += o->part[p].count, p++) {
        const float *got[KINDS] = {o->params[p].weight, o->part[p].state[OPTIM_M],
                                   o->part[p].state[OPTIM_V]};
        for (int k = 0; k < KINDS; k++) {
            worse(&worst[k], distance(got[k], want[k] + (step - 1) * n + first, o->part[p].count),
                  step);
        }
    }
}

static void check_trajectory(struct vectors *v)
{
    const struct op_table *op = op_cpu(1);
    size_t steps = vectors_dimension(v, "grad", 0), n = vectors_dimension(v, "grad", 1);
    size_t decayed = (size_t)vectors_fact(v, "decayed");
    struct train_spec spec = spec_of(v);
    float *grad = vectors_floats(v, "grad", steps * n), *start = vectors_floats(v, "start", n);
    float *want[KINDS];
    for (int k = 0; k < KINDS; k++) {
        want[k] = vectors_floats(v, kind_name[k], steps * n);
    }
    double *norm = vectors_bytes(v, "norm", steps, sizeof *norm);
    double *lr = vectors_bytes(v, "lr", steps, sizeof *lr);
    struct param params[2] = {
        {.count = decayed, .weight = start, .name = "matrix"},
        {.count = n - decayed, .weight = start + decayed, .name = "norm", .is_vector = true},
    };
    struct optim o;
    optim_init(&o, op, params, 2, NULL, 0);
    struct worst worst[KINDS] = {0}, norms = {0}, rates = {0};
    for (size_t step = 1; step <= steps; step++) {
        double mine = sqrt(op->sum_squares(grad + (step - 1) * n, n));
        double rate = schedule_next(&spec, step - 1, (step - 1) * STEP_TOKENS).lr;
        params[0].grad = grad + (step - 1) * n;
        params[1].grad = params[0].grad + decayed;
        optim_step(&o, &spec, step, rate, grad_clip_scale(mine, spec.optimizer.grad_clip));
        worse(&norms, fabs(mine - norm[step - 1]) / fmax(norm[step - 1], 1e-300), step);
        worse(&rates, fabs(rate - lr[step - 1]) / spec.optimizer.lr, step);
        compare(worst, &o, want, n, step);
    }
    vectors_note(v, "weights", worst[WEIGHT].error, WEIGHT_TOLERANCE, worst[WEIGHT].on);
    vectors_note(v, "first moments", worst[M].error, MOMENT_TOLERANCE, worst[M].on);
    vectors_note(v, "second moments", worst[V].error, MOMENT_TOLERANCE, worst[V].on);
    vectors_note(v, "gradient norm", norms.error, NORM_TOLERANCE, norms.on);
    vectors_note(v, "learning rate", rates.error, LR_TOLERANCE, rates.on);
    optim_fini(&o);
    for (int k = 0; k < KINDS; k++) {
        free(want[k]);
    }
    free(grad), free(start), free(norm), free(lr);
}

/* Weights, moments, norms and learning rates agree with torch's at every step. */
static void test_agrees(void **state)
{
    (void)state;
    vectors_each("optimiser", check_trajectory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_agrees)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
