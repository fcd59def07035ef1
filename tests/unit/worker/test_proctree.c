#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/buf.h"
#include "lib/clock.h"
#include "worker/proctree.h"

/* String literals are constant; what is filled in here is not. */
#define S(text)                                                                                    \
    (char[])                                                                                       \
    {                                                                                              \
        text                                                                                       \
    }

/* A process that starts one that leaves its group and session and ignores TERM, and so on, `depth`
 * deep; the first one stays or goes. */
static void run_stubborn(int depth, bool first_goes, int ready)
{
    signal(SIGTERM, SIG_IGN);
    for (int i = 0; i < depth; i++) {
        if (fork() > 0) {
            if (i == 0 && first_goes) {
                _exit(0);
            }
            for (;;) {
                pause();
            }
        }
        setsid();
    }
    ssize_t put = write(ready, "x", 1);
    (void)put;
    for (;;) {
        pause();
    }
}

static void kill_stubborn(bool first_goes)
{
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (fork() == 0) {
        run_stubborn(4, first_goes, ready[1]);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    struct buf text = {0};
    proctree_describe(getpid(), &text);
    assert_non_null(strstr(buf_cstr(&text), "test_proctree"));
    buf_fini(&text);
    int64_t deadline = clock_boot_ms() + 20000;
    int found_first = proctree_kill(getpid());
    assert_true(found_first >= 4);
    while (waitpid(-1, NULL, WNOHANG) >= 0) {
        proctree_kill(getpid());
        clock_sleep_ms(5);
        assert_true(clock_boot_ms() < deadline);
    }
    assert_int_equal(read(ready[0], &byte, 1), 0); /* nobody holds the other end */
    assert_int_equal(proctree_kill(getpid()), 0);
    close(ready[0]);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
}

/* The whole tree dies, whether it is still one or its root has left it behind. */
static void test_kill_tree(void **state)
{
    (void)state;
    kill_stubborn(false);
    kill_stubborn(true);
}

/* Processes are found by one exact assignment in their environment, and no others. */
static void test_kill_by_env(void **state)
{
    (void)state;
    char mine[128];
    char other[128];
    char *argv[] = {S("sleep"), S("100"), NULL};
    snprintf(mine, sizeof mine, "DS_RUN_DIR=/tmp/%d", (int)getpid());
    snprintf(other, sizeof other, "DS_RUN_DIR=/tmp/%d0", (int)getpid());
    char *env_mine[] = {S("A=1"), mine, NULL};
    char *env_other[] = {other, NULL};
    pid_t pids[2];
    for (int i = 0; i < 2; i++) {
        pids[i] = vfork();
        if (pids[i] == 0) {
            execvpe(argv[0], argv, i == 0 ? env_mine : env_other);
            _exit(1);
        }
    }
    /* While it executes, a process shows no environment. */
    int64_t deadline = clock_boot_ms() + 20000;
    int found = 0;
    while (found == 0 && clock_boot_ms() < deadline) {
        found = proctree_kill_by_env(mine);
    }
    assert_int_equal(found, 1);
    int status;
    assert_int_equal(waitpid(pids[0], &status, 0), pids[0]);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(proctree_kill_by_env(mine), 0);
    assert_int_equal(waitpid(pids[1], &status, WNOHANG), 0);
    kill(pids[1], SIGKILL);
    waitpid(pids[1], &status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kill_tree),
        cmocka_unit_test(test_kill_by_env),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
