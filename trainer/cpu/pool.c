/* The caller publishes a job and takes tasks off it like the others. Idle threads spin for a moment
 * (loops follow each other closely within a step) and then sleep. */
#include "trainer/cpu/pool.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "lib/mem.h"

#define SPINS 2000

static void pause_briefly(void)
{
#ifdef __x86_64__
    __builtin_ia32_pause();
#endif
}

static struct {
    int threads; /* with the caller */
    pthread_t *id;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pool_fn *fn;
    void *ctx;
    size_t tasks;
    bool stop;
    atomic_size_t next;       /* task */
    atomic_uint_fast64_t job; /* number of the published job */
    atomic_int busy;          /* threads that have not finished it */
} pool = {.threads = 1, .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static void work(size_t worker)
{
    for (;;) {
        size_t task = atomic_fetch_add(&pool.next, 1);
        if (task >= pool.tasks) {
            return;
        }
        pool.fn(pool.ctx, task, worker);
    }
}

static void await_job(uint_fast64_t done)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&pool.job) != done) {
            return;
        }
        pause_briefly();
    }
    pthread_mutex_lock(&pool.lock);
    while (atomic_load(&pool.job) == done) {
        pthread_cond_wait(&pool.wake, &pool.lock);
    }
    pthread_mutex_unlock(&pool.lock);
}

struct start {
    size_t worker;
    uint_fast64_t job;
};

static void *thread_main(void *arg)
{
    struct start start = *(struct start *)arg;
    free(arg);
    for (uint_fast64_t done = start.job;; done++) {
        await_job(done);
        if (pool.stop) {
            return NULL;
        }
        work(start.worker);
        atomic_fetch_sub(&pool.busy, 1);
    }
}

static void publish(pool_fn *fn, void *ctx, size_t tasks)
{
    pool.fn = fn;
    pool.ctx = ctx;
    pool.tasks = tasks;
    atomic_store(&pool.next, 0);
    atomic_store(&pool.busy, pool.threads - 1);
    pthread_mutex_lock(&pool.lock);
    atomic_fetch_add(&pool.job, 1);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
}

void pool_run(pool_fn *fn, void *ctx, size_t tasks)
{
    if (pool.threads == 1 || tasks <= 1) {
        for (size_t task = 0; task < tasks; task++) {
            fn(ctx, task, 0);
        }
        return;
    }
    publish(fn, ctx, tasks);
    work(0);
    for (int i = 0; atomic_load(&pool.busy) > 0; i++) {
        if (i < SPINS) {
            pause_briefly();
        } else {
            sched_yield();
        }
    }
}

int pool_threads(void)
{
    return pool.threads;
}

void pool_resize(int threads)
{
    threads = threads < 1 ? 1 : threads;
    if (threads == pool.threads) {
        return;
    }
    if (pool.threads > 1) {
        pool.stop = true;
        publish(NULL, NULL, 0);
        for (int i = 1; i < pool.threads; i++) {
            pthread_join(pool.id[i], NULL);
        }
        pool.stop = false;
        free(pool.id);
        pool.id = NULL;
    }
    pool.threads = threads;
    if (threads == 1) {
        return;
    }
    pool.id = mem_alloc_array((size_t)threads, sizeof *pool.id);
    for (int i = 1; i < threads; i++) {
        struct start *start = mem_alloc(sizeof *start);
        *start = (struct start){.worker = (size_t)i, .job = atomic_load(&pool.job)};
        int rc = pthread_create(&pool.id[i], NULL, thread_main, start);
        assert(rc == 0);
    }
}
