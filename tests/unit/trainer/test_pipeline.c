/* Pipelines of threads against one model with all layers: the same losses and, tensor by tensor,
 * the same gradients, to the bit, since every stage sees the micro-batches in the same order. Only
 * the embedding's is summed in another order. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/mem.h"
#include "tests/unit/trainer/model_fixture.h"
#include "trainer/pipeline.h"

enum { RANKS_MAX = 4, CHANNELS = 64, QUEUE = 64 };

/* ---- send and recv between threads */

struct queue {
    void *message[QUEUE];
    size_t sent, received;
};
struct post {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct queue queue[RANKS_MAX][RANKS_MAX][CHANNELS];
};
struct thread_comm {
    struct comm base;
    struct post *post;
};

static int thread_send(struct comm *c, uint32_t to, uint32_t channel, const void *data,
                       size_t bytes, struct err *err)
{
    (void)err;
    struct post *p = ((struct thread_comm *)c)->post;
    struct queue *q = &p->queue[c->rank][to][channel];
    void *copy = mem_alloc(bytes);
    memcpy(copy, data, bytes);
    pthread_mutex_lock(&p->lock);
    assert_true(q->sent - q->received < QUEUE);
    q->message[q->sent++ % QUEUE] = copy;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
    return 0;
}

static int thread_recv(struct comm *c, uint32_t from, uint32_t channel, void *data, size_t bytes,
                       struct err *err)
{
    (void)err;
    struct post *p = ((struct thread_comm *)c)->post;
    struct queue *q = &p->queue[from][c->rank][channel];
    pthread_mutex_lock(&p->lock);
    while (q->sent == q->received) {
        pthread_cond_wait(&p->changed, &p->lock);
    }
    void *message = q->message[q->received++ % QUEUE];
    pthread_mutex_unlock(&p->lock);
    memcpy(data, message, bytes);
    free(message);
    return 0;
}

static const struct comm_ops thread_ops = {
    .name = "threads", .send = thread_send, .recv = thread_recv};

/* ---- one comparison */

struct rank {
    struct mesh mesh;
    struct thread_comm comm;
    struct model_options options;
    struct model *model;
    struct pipeline pipeline;
    struct job *job;
    struct model_losses trained, evaluated;
    int rc;
    struct err err;
};

struct job {
    struct model_config config;
    struct recipe recipe;
    struct post post;
    enum pipeline_kind kind;
    uint32_t ranks, micros;
    int32_t *tokens[QUEUE]; /* of each micro-batch */
    struct rank rank[RANKS_MAX], alone;
};

static int tokens_of(void *ctx, uint32_t i, const int32_t **tokens, struct err *err)
{
    (void)err;
    *tokens = ((struct job *)ctx)->tokens[i];
    return 0;
}

static void *run_rank(void *arg)
{
    struct rank *r = arg;
    struct job *j = r->job;
    const struct pipeline_feed feed = {j, tokens_of};
    r->rc = pipeline_eval(&r->pipeline, &feed, j->micros / 2, false, &r->evaluated, &r->err);
    if (r->rc == 0) { /* fewer than planned, as a batch that still grows has */
        uint32_t few = pipeline_micros_min(j->kind, j->ranks);
        r->rc = pipeline_train(&r->pipeline, &feed, few, 1, &r->trained, &r->err);
    }
    model_zero_grad(r->model);
    model_router_reset(r->model);
    r->trained = (struct model_losses){0};
    if (r->rc == 0) {
        r->rc = pipeline_train(&r->pipeline, &feed, j->micros, 0.01, &r->trained, &r->err);
    }
    return NULL;
}

static void create(struct rank *r, struct job *j, enum pipeline_kind kind)
{
    struct err err = {0};
    r->job = j;
    r->options.mesh = &r->mesh;
    r->options.config = &j->config;
    r->options.recipe = &j->recipe;
    if (pipeline_plan(&r->options, kind, &r->mesh, j->micros, &err) != 0 ||
        model_create(&r->model, &r->options, &err) != 0) {
        fail_msg("%s", err.text);
    }
    pipeline_init(&r->pipeline, r->model, &r->options, kind, &r->comm.base);
    fixture_fill(r->model, 77);
}

static void start(struct job *j, enum pipeline_kind kind, uint32_t ranks, enum precision precision)
{
    *j = (struct job){.kind = kind, .ranks = ranks, .config = fixture_config()};
    uint32_t stages = pipeline_stages(kind, ranks);
    j->config.num_hidden_layers = stages + pick(0, 3);
    j->config.first_k_dense_replace = pick(0, 2);
    j->recipe = recipe_of(precision);
    j->recipe.recompute_norm = (enum recipe_flag)pick(0, 1); /* what is kept, and what is not */
    j->recipe.recompute_mla_up = (enum recipe_flag)pick(0, 1);
    j->recipe.recompute_swiglu = (enum recipe_flag)pick(0, 1);
    j->micros = pipeline_micros_min(kind, ranks) + pick(0, 5);
    pthread_mutex_init(&j->post.lock, NULL);
    pthread_cond_init(&j->post.changed, NULL);
    const struct model_options options = {.config = &j->config,
                                          .op = op_cpu(1),
                                          .precision = precision,
                                          .micro_batch = pick(1, 2),
                                          .sequence_length = pick(3, 9),
                                          .balance_alpha = 0.02,
                                          .mtp_lambda = 0.3};
    for (uint32_t i = 0; i < j->micros; i++) {
        j->tokens[i] = fixture_tokens(&options);
    }
    j->alone.mesh = fixture_mesh();
    j->alone.options = options;
    create(&j->alone, j, PIPELINE_1F1B);
    for (uint32_t i = 0; i < ranks; i++) {
        struct rank *r = &j->rank[i];
        r->mesh = (struct mesh){.pipeline = ranks,
                                .expert = 1,
                                .data = 1,
                                .rank = i,
                                .world = ranks,
                                .pipeline_index = i};
        r->comm = (struct thread_comm){{&thread_ops, i, ranks}, &j->post};
        r->options = options;
        create(r, j, kind);
    }
}

static void stop(struct job *j)
{
    for (uint32_t i = 0; i <= j->ranks; i++) {
        struct rank *r = i < j->ranks ? &j->rank[i] : &j->alone;
        pipeline_fini(&r->pipeline);
        model_destroy(r->model);
    }
    for (uint32_t i = 0; i < j->micros; i++) {
        free(j->tokens[i]);
    }
    pthread_mutex_destroy(&j->post.lock);
    pthread_cond_destroy(&j->post.changed);
}

static void run(struct job *j)
{
    pthread_t thread[RANKS_MAX];
    for (uint32_t i = 0; i < j->ranks; i++) {
        assert_int_equal(pthread_create(&thread[i], NULL, run_rank, &j->rank[i]), 0);
    }
    for (uint32_t i = 0; i < j->ranks; i++) {
        pthread_join(thread[i], NULL);
        if (j->rank[i].rc != 0) {
            fail_msg("rank %u: %s", i, j->rank[i].err.text);
        }
    }
    for (uint32_t i = 0; i < j->micros / 2; i++) {
        assert_int_equal(model_eval(j->alone.model, j->tokens[i], false, &j->alone.evaluated, NULL),
                         0);
    }
    model_zero_grad(j->alone.model);
    model_router_reset(j->alone.model);
    for (uint32_t i = 0; i < j->micros; i++) {
        assert_int_equal(model_train(j->alone.model, j->tokens[i], 0.01, &j->alone.trained, NULL),
                         0);
    }
}

/* Adds up what several ranks have of one tensor; returns how many. */
static int gradient_of(struct job *j, const char *name, size_t count, float *sum)
{
    int found = 0;
    for (uint32_t i = 0; i < j->ranks; i++) {
        size_t n;
        const struct param *p = model_params(j->rank[i].model, &n);
        for (size_t k = 0; k < n; k++) {
            if (strcmp(p[k].name, name) != 0) {
                continue;
            }
            assert_true(p[k].count == count && p[k].copy == (found > 0));
            for (size_t e = 0; e < count; e++) {
                sum[e] = found > 0 ? sum[e] + p[k].grad[e] : p[k].grad[e];
            }
            found++;
        }
    }
    return found;
}

static void compare_gradients(struct job *j)
{
    size_t n;
    const struct param *p = model_params(j->alone.model, &n);
    for (size_t k = 0; k < n; k++) {
        float *sum = mem_alloc_array(p[k].count, sizeof *sum);
        int found = gradient_of(j, p[k].name, p[k].count, sum);
        bool embedding = strcmp(p[k].name, "model.embed_tokens.weight") == 0;
        assert_true(found == 1 || (found == 2 && embedding));
        double square = 0, difference = 0;
        for (size_t e = 0; e < p[k].count; e++) {
            square += (double)p[k].grad[e] * p[k].grad[e];
            difference += pow((double)sum[e] - (double)p[k].grad[e], 2);
        }
        if (embedding ? difference > 1e-12 * square : difference != 0) {
            fail_msg("%u ranks: gradient of %s differs by %g of %g", j->ranks, p[k].name,
                     sqrt(difference), sqrt(square));
        }
        free(sum);
    }
}

static void compare_losses(struct job *j)
{
    struct model_losses trained = {0}, evaluated = {0};
    for (uint32_t i = 0; i < j->ranks; i++) {
        const struct rank *r = &j->rank[i];
        trained.loss += r->trained.loss;
        trained.mtp_loss += r->trained.mtp_loss;
        trained.balance += r->trained.balance;
        trained.tokens += r->trained.tokens;
        evaluated.loss += r->evaluated.loss;
        evaluated.tokens += r->evaluated.tokens;
    }
    const struct model_losses *want = &j->alone.trained;
    assert_true(trained.loss == want->loss && trained.mtp_loss == want->mtp_loss);
    assert_true(trained.tokens == want->tokens);
    assert_true(fabs(trained.balance - want->balance) <= 1e-9 * fabs(want->balance));
    assert_true(evaluated.loss == j->alone.evaluated.loss);
    assert_true(evaluated.tokens == j->alone.evaluated.tokens);
}

static void compare_loads(struct job *j)
{
    size_t n;
    const struct router *want = model_routers(j->alone.model, &n);
    for (size_t k = 0; k < n; k++) {
        for (uint32_t e = 0; e < want[k].experts; e++) {
            uint64_t sum = 0;
            for (uint32_t i = 0; i < j->ranks; i++) {
                size_t m;
                sum += model_routers(j->rank[i].model, &m)[k].load[e];
                assert_true(m == n);
            }
            assert_true(sum == want[k].load[e]);
        }
    }
}

static void compare(enum pipeline_kind kind, enum precision precision, int rounds)
{
    for (int i = 0; i < rounds; i++) {
        struct job *j = mem_alloc(sizeof *j);
        start(j, kind, pick(1, RANKS_MAX), precision);
        run(j);
        compare_losses(j);
        compare_gradients(j);
        compare_loads(j);
        stop(j);
        free(j);
    }
}

/* 1F1B gives what one rank gives, in every precision. */
static void test_1f1b(void **state)
{
    (void)state;
    compare(PIPELINE_1F1B, PRECISION_FP32, 25);
    compare(PIPELINE_1F1B, PRECISION_BF16, 5);
    compare(PIPELINE_1F1B, PRECISION_FP8, 10);
}

/* So does DualPipeV, split backward passes and all. */
static void test_dualpipev(void **state)
{
    (void)state;
    compare(PIPELINE_DUALPIPEV, PRECISION_FP32, 25);
    compare(PIPELINE_DUALPIPEV, PRECISION_BF16, 10);
    compare(PIPELINE_DUALPIPEV, PRECISION_FP8, 10);
}

/* More stages than layers, too few micro-batches, more than planned: refused, not run. */
static void test_refused(void **state)
{
    (void)state;
    struct job *j = mem_alloc(sizeof *j);
    struct err err = {0};
    start(j, PIPELINE_1F1B, 2, PRECISION_FP32);
    struct model_options o = j->rank[0].options;
    struct mesh mesh = j->rank[0].mesh;
    o.mesh = &mesh;
    mesh.pipeline = j->config.num_hidden_layers + 1;
    assert_int_equal(pipeline_plan(&o, PIPELINE_1F1B, &mesh, 8, &err), ERR_CONFIG);
    assert_non_null(strstr(err.text, "layers"));
    mesh.pipeline = 1;
    assert_int_equal(pipeline_plan(&o, PIPELINE_DUALPIPEV, &mesh, 1, &err), ERR_CONFIG);
    const struct pipeline_feed feed = {j, tokens_of};
    struct model_losses sums = {0};
    j->rank[1].pipeline.slots[0] = 0;
    assert_int_equal(pipeline_train(&j->rank[1].pipeline, &feed, 5, 1, &sums, &err), ERR_CONFIG);
    stop(j);
    free(j);
}

int main(void)
{
    random_start("test_pipeline");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_1f1b),
        cmocka_unit_test(test_dualpipev),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
