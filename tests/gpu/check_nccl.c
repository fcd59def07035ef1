/* check_nccl: the NCCL communicator with one rank, all that one GPU allows. Every collective, of
 * device and of host memory; a peer that never comes; a collective that is not over in time, in a
 * child process, which must end with the status of an aborted collective. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cuda_runtime_api.h>

#include "tests/unit/random.h"
#include "trainer/cuda/comm_nccl.h"
#include "trainer/cuda/driver.h"
#include "trainer/cuda/state.h"

enum { EXIT_NO_GPU = 78, EXIT_COLLECTIVE = 85, TIMEOUT_MS = 30000, COUNT = 100003 };

static int passed, failed;

static void result(const char *what, bool ok, const char *why)
{
    *(ok ? &passed : &failed) += 1;
    if (!ok) {
        printf("FAILED %s: %s\n", what, why);
    }
}

/* The coordinator's store, of one key. */
struct slot {
    char value[1024];
    size_t len;
};

static int slot_set(void *ctx, const char *key, const void *value, size_t len, struct err *err)
{
    struct slot *s = ctx;
    if (len > sizeof s->value) {
        return err_set(err, ERR_FAILED, "%s is too long", key);
    }
    memcpy(s->value, value, len);
    s->len = len;
    return 0;
}

static int slot_get(void *ctx, const char *key, int64_t timeout_ms, void **value, size_t *len,
                    struct err *err)
{
    struct slot *s = ctx;
    (void)timeout_ms;
    *value = malloc(s->len > 0 ? s->len : 1);
    if (*value == NULL || s->len == 0) {
        free(*value);
        return err_set(err, ERR_COMM, "%s: nobody has set it", key);
    }
    memcpy(*value, s->value, s->len);
    *len = s->len;
    return 0;
}

static int create(struct comm **c, uint32_t size, int64_t timeout_ms, struct err *err)
{
    static struct slot slot;
    const struct comm_store store = {&slot, slot_set, slot_get};
    return comm_nccl_create(c, &store, "check", 0, size, timeout_ms, err);
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- memory of either kind, poisoned or random */

static void *take(bool device, const void *from, size_t bytes)
{
    void *p = NULL;
    if (device) {
        state_check((int)cudaMalloc(&p, bytes), "allocate");
        state_check((int)cudaMemcpy(p, from, bytes, cudaMemcpyHostToDevice), "fill");
    } else {
        p = malloc(bytes);
        memcpy(p, from, bytes);
    }
    return p;
}

/* Compares, waiting for the stream, and frees. */
static void give(const char *what, bool device, void *p, const void *wanted, size_t bytes,
                 const struct err *err)
{
    char *got = malloc(bytes);
    if (device) {
        state_check((int)cudaStreamSynchronize(cuda_state.stream), "wait");
        state_check((int)cudaMemcpy(got, p, bytes, cudaMemcpyDeviceToHost), "read");
        cudaFree(p);
    } else {
        memcpy(got, p, bytes);
        free(p);
    }
    char name[80];
    snprintf(name, sizeof name, "%s of %s memory", what, device ? "device" : "host");
    result(name, err->code == 0 && memcmp(got, wanted, bytes) == 0,
           err->code != 0 ? err->text : "other numbers");
    free(got);
}

static void check_collectives(struct comm *c, bool device)
{
    static double numbers[COUNT];
    static char poison[sizeof numbers];
    struct err err = {0};
    for (size_t i = 0; i < COUNT; i++) { /* each half is an ordinary float too */
        float halves[2] = {(float)random_below(1000) / 7, (float)random_below(1000) / 9};
        memcpy(&numbers[i], halves, sizeof halves);
    }
    memset(poison, 0xFF, sizeof poison);
    void *p = take(device, numbers, sizeof numbers);
    (void)c->ops->all_reduce_sum_f32(c, p, (size_t)2 * COUNT, &err);
    give("all-reduce f32", device, p, numbers, sizeof numbers, &err);
    p = take(device, numbers, sizeof numbers);
    (void)c->ops->all_reduce_sum_f64(c, p, COUNT, &err);
    give("all-reduce f64", device, p, numbers, sizeof numbers, &err);
    p = take(device, numbers, sizeof numbers);
    (void)c->ops->all_reduce_sum_u64(c, p, COUNT, &err);
    give("all-reduce u64", device, p, numbers, sizeof numbers, &err);
    p = take(device, numbers, sizeof numbers);
    size_t first[2] = {0, (size_t)2 * COUNT};
    (void)c->ops->reduce_scatter_sum_f32(c, p, first, &err);
    give("reduce-scatter", device, p, numbers, sizeof numbers, &err);
    p = take(device, numbers, sizeof numbers);
    (void)c->ops->broadcast(c, p, sizeof numbers, 0, &err);
    give("broadcast", device, p, numbers, sizeof numbers, &err);

    void *in = take(device, numbers, sizeof numbers);
    p = take(device, poison, sizeof poison);
    (void)c->ops->all_gather(c, in, p, sizeof numbers, &err);
    give("all-gather", device, p, numbers, sizeof numbers, &err);
    /* Sends to and receives from itself; and nothing at all. */
    size_t bytes = sizeof numbers - 3, none = 0;
    p = take(device, poison, sizeof poison);
    (void)c->ops->all_to_all_v(c, in, &bytes, p, &bytes, &err);
    give("all-to-all-v", device, p, numbers, bytes, &err);
    p = take(device, poison, sizeof poison);
    (void)c->ops->all_to_all_v(c, in, &none, p, &none, &err);
    give("an empty all-to-all-v", device, p, poison, sizeof poison, &err);
    give("what was sent", device, in, numbers, sizeof numbers, &err);
    (void)c->ops->barrier(c, &err);
    result("barrier", err.code == 0, err.text);
}

/* Alone in a group of two: an error in time. */
static void check_absent(void)
{
    struct comm *c = NULL;
    struct err err = {0};
    int64_t began = now_ms();
    int rc = create(&c, 2, 3000, &err);
    result("a peer that never comes", rc == ERR_COMM && now_ms() - began < 20000,
           rc == 0 ? "the group was made without it" : err.text);
}

/* ---- a collective behind work that does not end in time */

static void stand_still(void *unused)
{
    (void)unused;
    sleep(60);
}

static int be_late(void)
{
    struct comm *c = NULL;
    struct err err = {0};
    float *p = NULL;
    if (create(&c, 1, 2000, &err) != 0 || cudaMalloc((void **)&p, 4) != cudaSuccess ||
        cudaLaunchHostFunc(cuda_state.stream, stand_still, NULL) != cudaSuccess) {
        fprintf(stderr, "check_nccl: %s\n", err.text);
        return 1;
    }
    (void)c->ops->all_reduce_sum_f32(c, p, 1, &err);
    sleep(60); /* the watchdog ends the process */
    return 0;
}

static void check_late(const char *program)
{
    int64_t began = now_ms();
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        execl(program, program, "late", (char *)NULL);
        _exit(1);
    }
    bool ended = pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status);
    char why[80];
    snprintf(why, sizeof why, "status %d after %lld ms", ended ? WEXITSTATUS(status) : -1,
             (long long)(now_ms() - began));
    result("a collective that is not over in time",
           ended && WEXITSTATUS(status) == EXIT_COLLECTIVE && now_ms() - began < 45000, why);
}

int main(int argc, char **argv)
{
    struct err err = {0};
    struct comm *c = NULL;
    bool late = argc > 1 && strcmp(argv[1], "late") == 0;
    if (driver_check(1, &err) != 0 || state_open(0, &err) != 0) {
        fprintf(stderr, "check_nccl: %s\n", err.text);
        return EXIT_NO_GPU;
    }
    if (late) {
        return be_late();
    }
    random_start("check_nccl");
    int rc = create(&c, 1, TIMEOUT_MS, &err);
    if (rc == ERR_CONFIG) { /* no library */
        fprintf(stderr, "check_nccl: %s\n", err.text);
        return EXIT_NO_GPU;
    }
    result("a group of one", rc == 0, err.text);
    if (rc == 0) {
        check_collectives(c, true);
        check_collectives(c, false);
        comm_destroy(c);
    }
    check_absent();
    check_late("/proc/self/exe");
    printf("check_nccl: %d passed, %d failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
}
