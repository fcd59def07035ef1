/* Experts spread over several ranks (threads here) against one rank with all tokens. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/mem.h"
#include "tests/unit/trainer/model_fixture.h"

enum { RANKS_MAX = 4 };

/* ---- a communicator between threads: only what the model calls */

struct exchange {
    pthread_barrier_t barrier;
    const char *in[RANKS_MAX];
    const size_t *send_bytes[RANKS_MAX];
    bool fail;
    atomic_size_t bytes; /* from rank to rank */
};
struct thread_comm {
    struct comm base;
    struct exchange *exchange;
};

static int thread_all_to_all_v(struct comm *c, const void *in, const size_t *send_bytes, void *out,
                               const size_t *recv_bytes, struct err *err)
{
    struct exchange *x = ((struct thread_comm *)c)->exchange;
    if (x->fail) {
        return err_set(err, ERR_COMM, "a peer is lost");
    }
    x->in[c->rank] = in;
    x->send_bytes[c->rank] = send_bytes;
    pthread_barrier_wait(&x->barrier);
    char *to = out;
    for (uint32_t r = 0; r < c->size; r++) {
        atomic_fetch_add(&x->bytes, r != c->rank ? send_bytes[r] : 0);
    }
    for (uint32_t r = 0; r < c->size; r++) {
        size_t skip = 0, bytes = x->send_bytes[r][c->rank];
        for (uint32_t i = 0; i < c->rank; i++) {
            skip += x->send_bytes[r][i];
        }
        assert_true(bytes == recv_bytes[r]);
        memcpy(to, x->in[r] + skip, bytes);
        to += bytes;
    }
    pthread_barrier_wait(&x->barrier);
    return 0;
}

static const struct comm_ops thread_ops = {.name = "threads", .all_to_all_v = thread_all_to_all_v};

/* ---- ranks */

struct rank {
    struct mesh mesh;
    struct thread_comm comm;
    struct model_options options;
    struct model *model;
    const int32_t *tokens;
    struct model_losses sums;
    int rc;
    struct err err;
};

static void *train_rank(void *arg)
{
    struct rank *r = arg;
    r->rc = model_train(r->model, r->tokens, 0.01, &r->sums, &r->err);
    return NULL;
}

struct job {
    struct model_config config;
    struct exchange exchange;
    uint32_t ranks;
    struct rank rank[RANKS_MAX], alone;
    int32_t *tokens;
};

static const struct op_table *plain_op; /* another than the CPU's */

static void create(struct rank *r)
{
    struct err err = {0};
    if (model_create(&r->model, &r->options, &err) != 0) {
        fail_msg("%s", err.text);
    }
    fixture_fill(r->model, 77);
}

/* skew: all tokens of all ranks choose the first expert first. */
static void start(struct job *j, uint32_t ranks, enum precision precision, bool skew)
{
    *j = (struct job){.ranks = ranks};
    do {
        j->config = fixture_config();
    } while (j->config.n_routed_experts < ranks ||
             j->config.first_k_dense_replace >= j->config.num_hidden_layers);
    struct model_options options = {.config = &j->config,
                                    .op = plain_op != NULL ? plain_op : op_cpu(1),
                                    .precision = precision,
                                    .micro_batch = pick(1, 2),
                                    .sequence_length = pick(3, 9),
                                    .balance_alpha = 0.02,
                                    .mtp_lambda = 0.3};
    j->alone.mesh = fixture_mesh();
    j->alone.options = options;
    j->alone.options.mesh = &j->alone.mesh;
    j->alone.options.micro_batch *= ranks;
    j->tokens = fixture_tokens(&j->alone.options);
    j->alone.tokens = j->tokens;
    create(&j->alone);
    pthread_barrier_init(&j->exchange.barrier, NULL, ranks);
    for (uint32_t i = 0; i < ranks; i++) {
        struct rank *r = &j->rank[i];
        r->mesh = (struct mesh){.pipeline = 1,
                                .expert = ranks,
                                .data = 1,
                                .rank = i,
                                .world = ranks,
                                .expert_index = i};
        r->comm = (struct thread_comm){{&thread_ops, i, ranks}, &j->exchange};
        r->options = options;
        r->options.mesh = &r->mesh;
        r->options.expert_comm = &r->comm.base;
        r->tokens = j->tokens + (size_t)i * options.micro_batch * (options.sequence_length + 1);
        create(r);
    }
    for (uint32_t i = 0; i <= ranks && skew; i++) {
        size_t count;
        struct router *router =
            model_routers(i < ranks ? j->rank[i].model : j->alone.model, &count);
        for (size_t k = 0; k < count; k++) {
            router[k].bias[0] = 10;
        }
    }
}

static void stop(struct job *j)
{
    model_destroy(j->alone.model);
    for (uint32_t i = 0; i < j->ranks; i++) {
        model_destroy(j->rank[i].model);
    }
    pthread_barrier_destroy(&j->exchange.barrier);
    free(j->tokens);
}

static void train(struct job *j)
{
    pthread_t thread[RANKS_MAX];
    for (uint32_t i = 0; i < j->ranks; i++) {
        assert_int_equal(pthread_create(&thread[i], NULL, train_rank, &j->rank[i]), 0);
    }
    for (uint32_t i = 0; i < j->ranks; i++) {
        pthread_join(thread[i], NULL);
    }
}

/* The parameter's gradient summed over the ranks that hold it. */
static double *summed_gradient(struct job *j, const struct param *p, int *holders)
{
    double *sum = mem_alloc_array(p->count, sizeof *sum);
    *holders = 0;
    for (uint32_t i = 0; i < j->ranks; i++) {
        size_t count;
        struct param *item = model_params(j->rank[i].model, &count);
        for (size_t k = 0; k < count; k++) {
            if (strcmp(item[k].name, p->name) == 0) {
                *holders += 1;
                for (size_t e = 0; e < p->count; e++) {
                    sum[e] += (double)item[k].grad[e];
                }
            }
        }
    }
    return sum;
}

static double gradient_error(struct job *j, const struct param *p)
{
    int holders;
    double *sum = summed_gradient(j, p, &holders), error = 0, norm = 0;
    assert_int_equal(holders, p->expert < 0 ? (int)j->ranks : 1);
    for (size_t e = 0; e < p->count; e++) {
        error += pow(sum[e] - (double)p->grad[e], 2);
        norm += pow((double)p->grad[e], 2);
    }
    free(sum);
    return sqrt(error) / (sqrt(norm) + 1e-4);
}

static bool close_to(double a, double b, double tolerance)
{
    return fabs(a - b) <= tolerance * (fabs(b) + 1e-6);
}

static void check(struct job *j, double tolerance, bool gradients)
{
    struct model_losses sums = {0};
    train(j);
    train_rank(&j->alone);
    assert_int_equal(j->alone.rc, 0);
    for (uint32_t i = 0; i < j->ranks; i++) {
        assert_int_equal(j->rank[i].rc, 0);
        sums.loss += j->rank[i].sums.loss;
        sums.mtp_loss += j->rank[i].sums.mtp_loss;
        sums.balance += j->rank[i].sums.balance;
        sums.tokens += j->rank[i].sums.tokens;
    }
    assert_true(close_to(sums.loss, j->alone.sums.loss, tolerance));
    assert_true(close_to(sums.mtp_loss, j->alone.sums.mtp_loss, tolerance));
    assert_true(close_to(sums.balance, j->alone.sums.balance, tolerance));
    assert_true(sums.tokens == j->alone.sums.tokens);
    size_t count, routers, off = 0;
    struct param *p = model_params(j->alone.model, &count);
    for (size_t k = 0; gradients && k < count; k++) {
        double error = gradient_error(j, &p[k]);
        off += error > tolerance;
        if (error > 20 * tolerance) {
            fail_msg("%s: gradient off by %g", p[k].name, error);
        }
    }
    assert_true(off <= count / 10); /* a badly conditioned random model may have a few */
    struct router *router = model_routers(j->alone.model, &routers);
    for (size_t k = 0; k < routers && gradients; k++) {
        for (uint32_t e = 0; e < router[k].experts; e++) {
            uint64_t load = 0;
            for (uint32_t i = 0; i < j->ranks; i++) {
                load += model_routers(j->rank[i].model, &routers)[k].load[e];
            }
            assert_true(load == router[k].load[e]);
        }
    }
}

/* Losses, loads and all gradients over 2 to 4 ranks equal one rank's to 1e-5, experts dividing
 * evenly or not. */
static void test_ranks(void **state)
{
    (void)state;
    for (int trial = 0; trial < 24; trial++) {
        struct job j;
        start(&j, 2 + (uint32_t)trial % 3, PRECISION_FP32, false);
        check(&j, 1e-5, true);
        stop(&j);
    }
}

/* All tokens to one expert: the other ranks get few rows or none, nothing is dropped. */
static void test_skew(void **state)
{
    (void)state;
    for (int trial = 0; trial < 12; trial++) {
        struct job j;
        start(&j, 2 + (uint32_t)trial % 3, PRECISION_FP32, true);
        check(&j, 1e-5, true);
        stop(&j);
    }
}

/* In FP8 the forward pass rounds each token by itself, so ranks do not change the losses beyond the
 * order of sums. */
static void test_fp8(void **state)
{
    (void)state;
    for (int trial = 0; trial < 6; trial++) {
        struct job j;
        start(&j, 2 + (uint32_t)trial % 3, PRECISION_FP8, true);
        check(&j, 2e-2, false);
        stop(&j);
    }
}

/* Two runs give the same bits, however the threads were scheduled. */
static void test_reproducible(void **state)
{
    (void)state;
    struct job j;
    start(&j, 3, PRECISION_FP8, false);
    double first = 0;
    float *kept = NULL;
    for (int run = 0; run < 4; run++) {
        for (uint32_t i = 0; i < j.ranks; i++) {
            model_zero_grad(j.rank[i].model);
            j.rank[i].sums = (struct model_losses){0};
        }
        train(&j);
        struct param_range range = model_param_range(j.rank[1].model, true);
        if (run == 0) {
            first = j.rank[1].sums.loss;
            kept = malloc(range.count * sizeof *kept);
            memcpy(kept, range.grad, range.count * sizeof *kept);
        }
        assert_true(j.rank[1].sums.loss == first);
        assert_memory_equal(kept, range.grad, range.count * sizeof *kept);
    }
    free(kept);
    stop(&j);
}

/* The gradients of all ranks, end to end. */
static float *gradients_of(struct job *j, size_t *count)
{
    float *all = NULL;
    *count = 0;
    for (uint32_t i = 0; i < 2 * j->ranks; i++) {
        struct param_range range = model_param_range(j->rank[i / 2].model, i % 2 != 0);
        all = realloc(all, (*count + range.count) * sizeof *all);
        memcpy(all + *count, range.grad, range.count * sizeof *all);
        *count += range.count;
    }
    return all;
}

/* Neither that rows travel as codes changes a bit, nor that they do so beside the computation. In
 * FP8 a number takes little more than a byte on its way to the experts and two on its way back. */
static void test_travel(void **state)
{
    (void)state;
    static struct op_table numbers;
    numbers = *op_cpu(1);
    numbers.pack = NULL;
    numbers.unpack = NULL;
    for (int trial = 0; trial < 18; trial++) {
        enum precision precision = (enum precision)(trial % 3);
        uint32_t ranks = 2 + (uint32_t)trial % 2;
        uint64_t seed = random_state;
        size_t bytes[3], count[3];
        float *gradient[3];
        for (int way = 0; way < 3; way++) { /* as numbers, as codes, as codes one after the other */
            struct job j;
            random_state = seed;
            assert_int_equal(setenv("DS_OVERLAP", way == 2 ? "0" : "1", 1), 0);
            plain_op = way == 0 ? &numbers : op_cpu(1);
            start(&j, ranks, precision, trial % 4 == 0);
            train(&j);
            gradient[way] = gradients_of(&j, &count[way]);
            bytes[way] = j.exchange.bytes;
            assert_true(count[way] == count[0]);
            assert_memory_equal(gradient[way], gradient[0], count[0] * sizeof(float));
            stop(&j);
        }
        assert_int_equal(bytes[1], bytes[2]);
        printf("  precision %d: %zu bytes, as numbers %zu\n", precision, bytes[1], bytes[0]);
        assert_true(precision == PRECISION_FP32 ? bytes[1] == bytes[0] : bytes[1] < bytes[0]);
        free(gradient[0]), free(gradient[1]), free(gradient[2]);
    }
    unsetenv("DS_OVERLAP");
    plain_op = NULL;
}

/* A lost peer is reported as such. */
static void test_lost_peer(void **state)
{
    (void)state;
    struct job j;
    start(&j, 2, PRECISION_FP32, false);
    j.exchange.fail = true;
    train(&j);
    assert_int_equal(j.rank[0].rc, ERR_COMM);
    assert_string_equal(j.rank[0].err.text, "a peer is lost");
    stop(&j);
}

int main(void)
{
    random_start("test_model_ep");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks),  cmocka_unit_test(test_skew),
        cmocka_unit_test(test_fp8),    cmocka_unit_test(test_reproducible),
        cmocka_unit_test(test_travel), cmocka_unit_test(test_lost_peer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
