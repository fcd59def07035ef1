#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "trainer/cpu/pool.h"

enum { TASKS_MAX = 500 };

struct job {
    atomic_int done[TASKS_MAX];
    atomic_int in_worker[16];
    int threads;
};

static void run(void *ctx, size_t task, size_t worker)
{
    struct job *job = ctx;
    assert_true(worker < (size_t)job->threads);
    assert_int_equal(atomic_fetch_add(&job->in_worker[worker], 1),
                     0); /* a worker does one task at a time */
    atomic_fetch_add(&job->done[task], 1);
    atomic_fetch_sub(&job->in_worker[worker], 1);
}

/* Every task runs exactly once and is done when pool_run returns, for any number of threads and
 * tasks, job after job. */
static void test_tasks(void **state)
{
    (void)state;
    static struct job job;
    static const int sizes[] = {1, 2, 5, 3, 8, 1, 0, 2};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        pool_resize(sizes[i]);
        job.threads = pool_threads();
        assert_int_equal(job.threads, sizes[i] < 1 ? 1 : sizes[i]);
        for (size_t tasks = 0; tasks < 100; tasks++) {
            memset(&job.done, 0, sizeof job.done);
            pool_run(run, &job, tasks);
            for (size_t t = 0; t < TASKS_MAX; t++) {
                assert_int_equal(atomic_load(&job.done[t]), t < tasks ? 1 : 0);
            }
        }
    }
    pool_resize(1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tasks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
