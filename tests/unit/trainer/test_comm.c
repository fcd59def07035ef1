/* The same cases over every communicator: ranks are threads of this process, except where a rank
 * has to die. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/mem.h"
#include "trainer/comm.h"

#define KEYS_MAX 64

/* A rendezvous store in shared memory, for threads and forked ranks alike. */
struct board {
    pthread_mutex_t lock;
    int count;
    struct {
        char key[128];
        size_t len;
        char value[4096];
    } item[KEYS_MAX];
};

static struct board *board_create(void)
{
    struct board *b =
        mmap(NULL, sizeof *b, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(b, MAP_FAILED);
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&b->lock, &attr);
    return b;
}

static int board_set(void *ctx, const char *key, const void *value, size_t len, struct err *err)
{
    struct board *b = ctx;
    if (len > sizeof b->item[0].value || b->count == KEYS_MAX) {
        return err_set(err, ERR_TOO_LARGE, "board is full");
    }
    pthread_mutex_lock(&b->lock);
    snprintf(b->item[b->count].key, sizeof b->item[0].key, "%s", key);
    memcpy(b->item[b->count].value, value, len);
    b->item[b->count].len = len;
    b->count++;
    pthread_mutex_unlock(&b->lock);
    return 0;
}

static int board_get(void *ctx, const char *key, int64_t timeout_ms, void **value, size_t *len,
                     struct err *err)
{
    struct board *b = ctx;
    int64_t deadline = clock_boot_ms() + timeout_ms;
    do {
        pthread_mutex_lock(&b->lock);
        for (int i = 0; i < b->count; i++) {
            if (strcmp(b->item[i].key, key) == 0) {
                *len = b->item[i].len;
                *value = malloc(*len);
                memcpy(*value, b->item[i].value, *len);
                pthread_mutex_unlock(&b->lock);
                return 0;
            }
        }
        pthread_mutex_unlock(&b->lock);
        clock_sleep_ms(2);
    } while (clock_boot_ms() < deadline);
    return err_set(err, ERR_TIMEOUT, "no key %s", key);
}

struct job {
    struct comm_store store;
    uint32_t rank, size;
    int (*body)(struct comm *c, struct job *job);
    int failed; /* line of the first check that did not hold */
    void *out;
};

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            return __LINE__;                                                                       \
        }                                                                                          \
    } while (0)

static int (*create)(struct comm **c, const struct comm_store *store, const char *prefix,
                     uint32_t rank, uint32_t size, const char *address, int64_t timeout_ms,
                     struct err *err) = comm_gloo_create;

static void *rank_main(void *arg)
{
    struct job *job = arg;
    struct comm *c;
    if (job->size == 1) {
        c = comm_self_create();
    } else {
        struct err err = {0};
        if (create(&c, &job->store, "test", job->rank, job->size, "127.0.0.1", 20000, &err) != 0) {
            fprintf(stderr, "%s\n", err.text);
            job->failed = __LINE__;
            return NULL;
        }
    }
    job->failed = c->rank == job->rank && c->size == job->size ? job->body(c, job) : __LINE__;
    comm_destroy(c);
    return NULL;
}

/* Runs body on `size` ranks; out (may be NULL) gets each rank's job->out. */
static void on_ranks(uint32_t size, int (*body)(struct comm *, struct job *), void **out)
{
    struct board *board = board_create();
    struct job job[8] = {0};
    pthread_t thread[8];
    for (uint32_t r = 0; r < size; r++) {
        job[r] = (struct job){
            .store = {board, board_set, board_get}, .rank = r, .size = size, .body = body};
        assert_int_equal(pthread_create(&thread[r], NULL, rank_main, &job[r]), 0);
    }
    for (uint32_t r = 0; r < size; r++) {
        pthread_join(thread[r], NULL);
    }
    for (uint32_t r = 0; r < size; r++) {
        if (job[r].failed != 0) {
            fail_msg("rank %u of %u failed at line %d", r, size, job[r].failed);
        }
        if (out != NULL) {
            out[r] = job[r].out;
        }
    }
    munmap(board, sizeof *board);
}

static int sums(struct comm *c, struct job *job)
{
    (void)job;
    static const size_t sizes[] = {0, 1, 2, 7, 1000, 300001};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        size_t n = sizes[k];
        float *f = mem_alloc_array(n, sizeof *f);
        double *d = mem_alloc_array(n, sizeof *d);
        uint64_t *u = mem_alloc_array(n, sizeof *u);
        for (size_t i = 0; i < n; i++) {
            f[i] = (float)(c->rank + i % 100);
            d[i] = (double)c->rank - (double)i;
            u[i] = ((uint64_t)1 << 60) * (c->rank == 0) + i;
        }
        CHECK(c->ops->all_reduce_sum_f32(c, f, n, NULL) == 0);
        CHECK(c->ops->all_reduce_sum_f64(c, d, n, NULL) == 0);
        CHECK(c->ops->all_reduce_sum_u64(c, u, n, NULL) == 0);
        uint32_t ranks = c->size * (c->size - 1) / 2;
        for (size_t i = 0; i < n; i++) {
            CHECK(f[i] == (float)(ranks + c->size * (i % 100)));
            CHECK(d[i] == (double)ranks - (double)c->size * (double)i);
            CHECK(u[i] == ((uint64_t)1 << 60) + c->size * i);
        }
        free(f);
        free(d);
        free(u);
    }
    return 0;
}

static int exchange(struct comm *c, struct job *job)
{
    (void)job;
    uint32_t n = c->size;
    uint32_t mine[3] = {c->rank, c->rank * 10, 7};
    uint32_t all[8 * 3];
    CHECK(c->ops->all_gather(c, mine, all, sizeof mine, NULL) == 0);
    for (uint32_t r = 0; r < n; r++) {
        CHECK(all[3 * r] == r && all[3 * r + 1] == r * 10 && all[3 * r + 2] == 7);
    }
    /* round 0: rank s sends s*3 + r bytes to r, zero included; round 1: nothing at all */
    for (int round = 0; round < 2; round++) {
        size_t send[8];
        size_t recv[8];
        uint8_t in[512];
        uint8_t out[512];
        size_t used = 0;
        for (uint32_t r = 0; r < n; r++) {
            send[r] = round == 0 ? c->rank * 3 + r : 0;
            recv[r] = round == 0 ? r * 3 + c->rank : 0;
            for (size_t i = 0; i < send[r]; i++) {
                in[used++] = (uint8_t)(c->rank * 16 + r);
            }
        }
        CHECK(c->ops->all_to_all_v(c, round == 0 ? in : NULL, send, round == 0 ? out : NULL, recv,
                                   NULL) == 0);
        used = 0;
        for (uint32_t r = 0; r < n; r++) {
            for (size_t i = 0; i < recv[r]; i++) {
                CHECK(out[used++] == (uint8_t)(r * 16 + c->rank));
            }
        }
    }
    for (uint32_t root = 0; root < n; root++) {
        uint8_t data[1000];
        memset(data, (int)(c->rank + 1), sizeof data);
        CHECK(c->ops->broadcast(c, data, sizeof data, root, NULL) == 0);
        for (size_t i = 0; i < sizeof data; i++) {
            CHECK(data[i] == root + 1);
        }
    }
    CHECK(c->ops->barrier(c, NULL) == 0);
    return 0;
}

/* Part r of the sum of floats at rank r, with the bits an all-reduce gives; gathered in place, the
 * whole. */
static int scattered_sums(struct comm *c, struct job *job)
{
    (void)job;
    static const size_t parts[] = {0, 1, 16, 8192, 8193, 20000};
    for (size_t k = 0; k < sizeof parts / sizeof parts[0]; k++) {
        size_t n = parts[k] * c->size;
        float *whole = mem_alloc_array(n, sizeof *whole);
        float *part = mem_alloc_array(n, sizeof *part);
        uint32_t x = 99 + c->rank;
        for (size_t i = 0; i < n; i++) {
            x = x * 1664525u + 1013904223u;
            whole[i] = part[i] = (float)((double)(int32_t)x / 1e6);
        }
        CHECK(c->ops->all_reduce_sum_f32(c, whole, n, NULL) == 0);
        size_t first[5];
        for (uint32_t r = 0; r <= c->size; r++) {
            first[r] = r * parts[k];
        }
        CHECK(c->ops->reduce_scatter_sum_f32(c, part, first, NULL) == 0);
        float *own = part + c->rank * parts[k];
        CHECK(memcmp(own, whole + c->rank * parts[k], parts[k] * sizeof *own) == 0);
        CHECK(c->ops->all_gather(c, own, part, parts[k] * sizeof *own, NULL) == 0);
        CHECK(memcmp(part, whole, n * sizeof *part) == 0);
        free(whole);
        free(part);
    }
    return 0;
}

/* Segments of any lengths, empty ones among them: a run of the whole that some ranks have no part
 * of. Several in a row, so that who is done goes on. */
static int uneven_sums(struct comm *c, struct job *job)
{
    (void)job;
    static const size_t lengths[][4] = {
        {0, 50000, 0, 0}, {70000, 0, 1, 9000}, {0, 0, 0, 3}, {5, 20000, 0, 30000}, {0, 0, 0, 0}};
    for (size_t k = 0; k < sizeof lengths / sizeof lengths[0]; k++) {
        size_t first[5] = {0};
        for (uint32_t r = 0; r < c->size; r++) {
            first[r + 1] = first[r] + lengths[k][r];
        }
        size_t n = first[c->size];
        float *whole = mem_alloc_array(n, sizeof *whole);
        float *part = mem_alloc_array(n, sizeof *part);
        for (size_t i = 0; i < n; i++) {
            whole[i] = part[i] = (float)((i + 3) * (c->rank + 1)) / 7.0f;
        }
        CHECK(c->ops->reduce_scatter_sum_f32(c, part, first, NULL) == 0);
        CHECK(c->ops->all_reduce_sum_f32(c, whole, n, NULL) == 0);
        size_t own = first[c->rank];
        CHECK(memcmp(part + own, whole + own, lengths[k][c->rank] * sizeof *part) == 0);
        free(whole);
        free(part);
    }
    return 0;
}

/* Reduce-scatter is an all-reduce of which each rank gets its part. */
static void test_reduce_scatter(void **state)
{
    (void)state;
    for (uint32_t size = 1; size <= 4; size++) {
        on_ranks(size, scattered_sums, NULL);
        on_ranks(size, uneven_sums, NULL);
    }
}

enum { MESSAGES = 6, MESSAGE_BYTES = 300000 };

static uint8_t content(uint32_t from, uint32_t to, uint32_t channel, uint32_t i)
{
    return (uint8_t)(1 + from * 101 + to * 37 + channel * 11 + i);
}

static int send_to_all(struct comm *c, uint32_t channel, uint32_t i, uint8_t *data, size_t bytes)
{
    for (uint32_t r = 0; r < c->size; r++) {
        memset(data, content(c->rank, r, channel, i), bytes);
        CHECK(r == c->rank || c->ops->send(c, r, channel, data, bytes, NULL) == 0);
    }
    return 0;
}

/* Everyone sends everyone more than sockets hold before anyone receives, twice; channels are
 * emptied in another order than they were filled. */
static int post_office(struct comm *c, struct job *job)
{
    (void)job;
    uint8_t *data = mem_alloc(MESSAGE_BYTES);
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < MESSAGES; i++) {
            CHECK(send_to_all(c, 0, i, data, MESSAGE_BYTES) == 0);
            CHECK(send_to_all(c, 5, i, data, 17) == 0);
        }
        for (uint32_t i = 0; i < 2 * MESSAGES; i++) {
            uint32_t channel = i < MESSAGES ? 5 : 0;
            size_t bytes = channel == 5 ? 17 : MESSAGE_BYTES;
            for (uint32_t r = 0; r < c->size; r++) {
                if (r == c->rank) {
                    continue;
                }
                CHECK(c->ops->recv(c, r, channel, data, bytes, NULL) == 0);
                uint8_t want = content(r, c->rank, channel, i % MESSAGES);
                CHECK(data[0] == want && data[bytes / 2] == want && data[bytes - 1] == want);
            }
        }
    }
    free(data);
    return 0;
}

/* Messages of a channel come in order and whole, without anyone waiting for the receiver. */
static void test_send_recv(void **state)
{
    (void)state;
    create = comm_gloo_peers_create;
    for (uint32_t size = 2; size <= 4; size++) {
        on_ranks(size, post_office, NULL);
    }
    create = comm_gloo_create;
}

static int wrong_size(struct comm *c, struct job *job)
{
    (void)job;
    uint8_t data[64] = {0};
    struct err err = {0};
    if (c->rank == 0) {
        CHECK(c->ops->send(c, 1, 3, data, 32, NULL) == 0);
        CHECK(c->ops->recv(c, 1, 3, data, 1, NULL) == 0);
        return 0;
    }
    CHECK(c->ops->recv(c, 0, 3, data, 64, &err) == ERR_COMM);
    CHECK(strstr(err.text, "out of step") != NULL);
    CHECK(c->ops->send(c, 0, 3, data, 1, NULL) == 0);
    return 0;
}

/* A message of another size than expected is an error, not garbage. */
static void test_wrong_size(void **state)
{
    (void)state;
    create = comm_gloo_peers_create;
    on_ranks(2, wrong_size, NULL);
    create = comm_gloo_create;
}

/* All-reduce gives the exact sum of integers on every rank, for every size down to none. */
static void test_all_reduce(void **state)
{
    (void)state;
    for (uint32_t size = 1; size <= 4; size++) {
        on_ranks(size, sums, NULL);
    }
}

/* All-gather, unequal and empty all-to-all, broadcast from every root. */
static void test_exchange(void **state)
{
    (void)state;
    for (uint32_t size = 1; size <= 4; size++) {
        on_ranks(size, exchange, NULL);
    }
}

#define FLOATS 50021

static int float_sum(struct comm *c, struct job *job)
{
    float *f = mem_alloc_array(FLOATS, sizeof *f);
    uint32_t x = 12345 + c->rank;
    for (size_t i = 0; i < FLOATS; i++) {
        x = x * 1664525u + 1013904223u;
        f[i] = (float)((double)(int32_t)x / 1e6);
    }
    /* ranks arrive at different times: order of arrival must not matter */
    clock_sleep_ms((int64_t)(x % 20));
    CHECK(c->ops->all_reduce_sum_f32(c, f, FLOATS, NULL) == 0);
    job->out = f;
    return 0;
}

/* A sum of floats has the same bits on every rank and in every repetition. */
static void test_reproducible(void **state)
{
    (void)state;
    for (uint32_t size = 2; size <= 4; size++) {
        void *first[8];
        on_ranks(size, float_sum, first);
        for (int again = 0; again < 4; again++) {
            void *out[8];
            on_ranks(size, float_sum, out);
            for (uint32_t r = 0; r < size; r++) {
                assert_memory_equal(out[r], first[0], FLOATS * sizeof(float));
                free(out[r]);
            }
        }
        for (uint32_t r = 0; r < size; r++) {
            free(first[r]);
        }
    }
}

static unsigned matrix_seed;

static size_t cell(unsigned *x)
{
    *x = *x * 1664525u + 1013904223u;
    unsigned kind = *x >> 29;
    return kind < 3 ? 0 : kind < 6 ? (*x >> 8) % 2000 : (*x >> 8) % 400000;
}

static int random_exchanges(struct comm *c, struct job *job)
{
    (void)job;
    unsigned x = matrix_seed;
    for (int round = 0; round < 12; round++) {
        size_t matrix[8][8];
        size_t send[8];
        size_t recv[8];
        size_t send_total = 0;
        size_t recv_total = 0;
        for (uint32_t from = 0; from < c->size; from++) {
            for (uint32_t to = 0; to < c->size; to++) {
                matrix[from][to] = cell(&x);
            }
        }
        for (uint32_t r = 0; r < c->size; r++) {
            send[r] = matrix[c->rank][r];
            recv[r] = matrix[r][c->rank];
            send_total += send[r];
            recv_total += recv[r];
        }
        uint8_t *in = mem_alloc(send_total);
        uint8_t *out = mem_alloc(recv_total);
        uint8_t *p = in;
        for (uint32_t r = 0; r < c->size; r++) {
            for (size_t i = 0; i < send[r]; i++) {
                *p++ = (uint8_t)(i * 7 + c->rank * 31 + r);
            }
        }
        clock_sleep_ms((int64_t)((x >> (c->rank + 3)) % 4)); /* ranks drift apart */
        CHECK(c->ops->all_to_all_v(c, in, send, out, recv, NULL) == 0);
        p = out;
        for (uint32_t r = 0; r < c->size; r++) {
            for (size_t i = 0; i < recv[r]; i++) {
                CHECK(*p++ == (uint8_t)(i * 7 + r * 31 + c->rank));
            }
        }
        uint64_t sum = c->rank;
        CHECK(c->ops->all_reduce_sum_u64(c, &sum, 1, NULL) == 0);
        CHECK(sum == c->size * (c->size - 1) / 2);
        free(in);
        free(out);
    }
    return 0;
}

/* Any matrix of sizes, very unequal and empty ones too, arrives whole, and no order of arrival
 * makes the ranks wait for each other in a circle. */
static void test_random_sizes(void **state)
{
    (void)state;
    matrix_seed = (unsigned)clock_wall_ms();
    print_message("seed %u\n", matrix_seed);
    for (uint32_t size = 2; size <= 6; size++) {
        on_ranks(size, random_exchanges, NULL);
    }
}

static int disagree(struct comm *c, struct job *job)
{
    (void)job;
    uint64_t data[2] = {0};
    struct err err = {0};
    int rc = c->ops->all_reduce_sum_u64(c, data, c->rank == 1 ? 2 : 1, &err);
    CHECK(rc == ERR_COMM);
    CHECK(strstr(err.text, "out of step") != NULL || strstr(err.text, "peer") != NULL);
    return 0;
}

/* Ranks that call with different sizes get an error, not each other's bytes. */
static void test_out_of_step(void **state)
{
    (void)state;
    on_ranks(2, disagree, NULL);
}

/* When a peer dies in mid-run the others get ERR_COMM, soon, and with a text that names the group.
 */
static void test_peer_lost(void **state)
{
    (void)state;
    struct board *board = board_create();
    pid_t pid[3];
    for (uint32_t r = 0; r < 3; r++) {
        pid[r] = fork();
        assert_true(pid[r] >= 0);
        if (pid[r] != 0) {
            continue;
        }
        struct comm_store store = {board, board_set, board_get};
        struct comm *c;
        struct err err = {0};
        if (comm_gloo_create(&c, &store, "lost", r, 3, "127.0.0.1", 20000, &err) != 0) {
            _exit(1);
        }
        float data[1000] = {0};
        for (int i = 0;; i++) {
            if (i == 20 && r == 1) {
                raise(SIGKILL);
            }
            int rc = c->ops->all_reduce_sum_f32(c, data, 1000, &err);
            if (rc != 0) {
                _exit(rc == ERR_COMM && strstr(err.text, "lost") != NULL ? 85 : 2);
            }
        }
    }
    int64_t start = clock_boot_ms();
    for (uint32_t r = 0; r < 3; r++) {
        int status;
        assert_int_equal(waitpid(pid[r], &status, 0), pid[r]);
        if (r == 1) {
            assert_true(WIFSIGNALED(status));
        } else {
            assert_true(WIFEXITED(status));
            assert_int_equal(WEXITSTATUS(status), 85);
        }
    }
    assert_true(clock_boot_ms() - start < 15000); /* long before the time-out */
    munmap(board, sizeof *board);
}

/* A rank that never comes makes the others fail with ERR_COMM after the time-out instead of waiting
 * for ever. */
static void test_rendezvous_timeout(void **state)
{
    (void)state;
    struct board *board = board_create();
    struct comm_store store = {board, board_set, board_get};
    struct comm *c = NULL;
    struct err err = {0};
    assert_int_equal(comm_gloo_create(&c, &store, "alone", 0, 2, "127.0.0.1", 200, &err), ERR_COMM);
    assert_non_null(strstr(err.text, "alone"));
    munmap(board, sizeof *board);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as the trainer has it */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_reduce),   cmocka_unit_test(test_reduce_scatter),
        cmocka_unit_test(test_send_recv),    cmocka_unit_test(test_wrong_size),
        cmocka_unit_test(test_exchange),     cmocka_unit_test(test_reproducible),
        cmocka_unit_test(test_peer_lost),    cmocka_unit_test(test_rendezvous_timeout),
        cmocka_unit_test(test_random_sizes), cmocka_unit_test(test_out_of_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
