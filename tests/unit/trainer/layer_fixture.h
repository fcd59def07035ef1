/* One layer on its own, beside the oracle's: built, filled with random weights, and its gradients
 * held against central differences. */
#ifndef TESTS_UNIT_TRAINER_LAYER_FIXTURE_H
#define TESTS_UNIT_TRAINER_LAYER_FIXTURE_H

#include "lib/mem.h"
#include "tests/unit/trainer/model_fixture.h"
#include "tests/unit/trainer/op_fixture.h"
#include "tests/unit/trainer/oracle.h"
#include "trainer/layer.h"
#include "trainer/rope.h"

struct layer_fixture {
    struct model_config config;
    struct mesh mesh;
    struct shape shape;
    struct params params;
    struct arena keep, scratch, host;
    struct router router;
    struct ctx ctx;
    float *rope;
    struct oracle oracle;
};

typedef void layer_build(void *layer, struct builder *b, struct layer_fixture *f);

static inline void build_once(struct layer_fixture *f, layer_build *build, void *layer)
{
    struct builder b = {.config = &f->config,
                        .mesh = &f->mesh,
                        .params = &f->params,
                        .keep = &f->keep,
                        .scratch = &f->scratch,
                        .host = &f->host,
                        .recipe = f->ctx.recipe,
                        .op = f->ctx.op,
                        .shape = f->shape};
    params_begin(&f->params);
    f->keep.used = f->scratch.used = f->host.used = 0;
    build(layer, &b, f);
    params_align(&f->params);
    f->ctx.operand_dy = arena_floats(&f->keep, b.operand_dy);
    f->ctx.operand_x = arena_floats(&f->keep, b.operand_x);
}

static inline void oracle_from(struct layer_fixture *f)
{
    struct oracle *o = &f->oracle;
    *o = (struct oracle){.c = &f->config, .batch = f->shape.batch, .seq = f->shape.seq, .alpha = 1};
    o->tensors = f->params.count + 1;
    o->tensor = calloc(o->tensors, sizeof *o->tensor);
    for (size_t i = 0; i < o->tensors; i++) {
        bool bias = i == f->params.count;
        struct oracle_tensor *t = &o->tensor[i];
        snprintf(t->name, sizeof t->name, "%s", bias ? f->router.name : f->params.item[i].name);
        t->hash = o_hash(t->name);
        t->count = bias ? f->router.experts : f->params.item[i].count;
        t->value = doubles(bias ? f->router.bias : f->params.item[i].weight, t->count);
    }
}

/* A random model shape of at least 2 positions, one rank. The layer is built and filled; prefix of
 * names is "p.". */
static inline void layer_start_as(struct layer_fixture *f, enum precision precision,
                                  const struct op_table *op, layer_build *build, void *layer)
{
    size_t batch = pick(1, 3), seq = pick(2, 6);
    *f = (struct layer_fixture){
        .config = fixture_config(), .mesh = fixture_mesh(), .shape = {batch, seq, batch * seq}};
    f->params.op = op;
    f->params.recipe = recipe_of(precision);
    f->router.experts = f->config.n_routed_experts;
    f->router.bias = random_floats(f->router.experts, -1, 0.2);
    f->router.load = calloc(f->router.experts, sizeof *f->router.load);
    snprintf(f->router.name, sizeof f->router.name, "p.gate.e_score_correction_bias");
    f->rope = random_floats(seq * f->config.qk_rope_head_dim, 0, 0);
    rope_table(&f->config, seq, f->rope);
    f->ctx = (struct ctx){.op = op,
                          .config = &f->config,
                          .recipe = recipe_of(precision),
                          .grad_scale = 0.5f,
                          .balance_scale = 1,
                          .count_load = true,
                          .rope = f->rope,
                          .softmax_scale = (float)rope_softmax_scale(&f->config)};
    build_once(f, build, layer);
    f->keep.base = op->alloc(f->keep.size);
    f->scratch.base = op->alloc(f->scratch.size);
    f->host.base = mem_alloc(f->host.size);
    params_allocate(&f->params);
    build_once(f, build, layer);
    for (size_t i = 0; i < f->params.count; i++) {
        struct param *p = &f->params.item[i];
        for (size_t j = 0; j < p->count; j++) {
            double gain = p->is_vector ? 1 : sqrt(3.0 / p->cols);
            p->weight[j] = (float)(p->is_vector ? uniform(0.5, 1.5) : uniform(-gain, gain));
        }
    }
    params_refresh(&f->params);
    oracle_from(f);
}

static inline void layer_start(struct layer_fixture *f, const struct op_table *op,
                               layer_build *build, void *layer)
{
    layer_start_as(f, PRECISION_FP32, op, build, layer);
}

static inline void layer_stop(struct layer_fixture *f)
{
    const struct op_table *op = f->ctx.op;
    op->release(f->keep.base);
    op->release(f->scratch.base);
    free(f->host.base);
    params_fini(&f->params);
    free(f->router.bias), free(f->router.load), free(f->rope);
    oracle_fini(&f->oracle);
}

/* The oracle's side: y from x, dense, and what the layer adds to the objective besides. */
struct layer_case {
    struct layer_fixture *f;
    void (*run)(struct oracle *o, struct shape s, const double *x, double *y);
    double *x, *weight, *y; /* weight: of y in the objective */
    size_t x_count, y_count;
};

static inline double layer_objective(void *ctx)
{
    struct layer_case *k = ctx;
    struct oracle *o = &k->f->oracle;
    double total = 0;
    memset(k->y, 0, k->y_count * sizeof *k->y);
    o->balance = 0;
    o->margin = INFINITY;
    k->run(o, k->f->shape, k->x, k->y);
    for (size_t i = 0; i < k->y_count; i++) {
        total += k->weight[i] * k->y[i];
    }
    return total + o->balance;
}

/* What a layer did, against the oracle: y, dx and all parameter gradients; the worst relative
 * error. */
static inline double layer_errors(struct layer_case *k, struct mat y, struct mat dx)
{
    struct layer_fixture *f = k->f;
    layer_objective(k);
    double worst = mat_error(y, k->y, 1e-2);
    double *d = differences(layer_objective, k, k->x, k->x_count);
    worst = fmax(worst, mat_error(dx, d, 1e-2));
    free(d);
    for (size_t i = 0; i < f->params.count; i++) {
        struct param *p = &f->params.item[i];
        d = differences(layer_objective, k, f->oracle.tensor[i].value, p->count);
        for (size_t j = 0; j < p->count; j++) {
            d[j] *= (double)f->ctx.grad_scale;
        }
        double error = array_error(p->grad, d, p->count, 1e-1);
        if (error > 1e-4) {
            printf("  %s: gradient off by %g\n", p->name, error);
        }
        worst = fmax(worst, error);
        free(d);
    }
    return worst;
}

#endif
