#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "worker/attempt_env.h"

/* String literals are constant; what is filled in here is not. */
#define S(text)                                                                                    \
    (char[])                                                                                       \
    {                                                                                              \
        text                                                                                       \
    }

static Ds__AttemptStart order;
static uint32_t gpus[] = {3, 1};
static struct attempt_facts facts;

static void make_order(void)
{
    static char text[] = "x";
    static char dir[] = "/ckpt/t00001-e00002";
    static char host[] = "10.0.0.9";
    order = (Ds__AttemptStart)DS__ATTEMPT_START__INIT;
    order.job = 12;
    order.epoch = 2;
    order.name = text;
    order.user = text;
    order.spec = text;
    order.workdir = dir;
    order.node_rank = 1;
    order.node_count = 2;
    order.rank_first = 2;
    order.world_size = 4;
    order.n_gpu_index = 2;
    order.gpu_index = gpus;
    order.master_addr = host;
    order.master_port = 29500;
    order.checkpoint_dir = dir;
    facts = (struct attempt_facts){
        "/s/attempts/12-2", "/s/report.sock", "10.0.0.7", "/bin/dstrain", 9, false, NULL};
}

static const char *value(const Ds__ShimLaunch *l, const char *name)
{
    const char *found = NULL;
    size_t len = strlen(name);
    for (size_t i = 0; i < l->n_env; i++) {
        if (strncmp(l->env[i], name, len) == 0 && l->env[i][len] == '=') {
            assert_null(found); /* each name once */
            found = l->env[i] + len + 1;
        }
    }
    return found;
}

/* A rank sees what the contract promises; the job's own variables win over inherited ones, and ours
 * over both. */
static void test_environment(void **state)
{
    (void)state;
    make_order();
    char *inherited[] = {S("PATH=/usr/bin"),    S("A=1"),     S("DS_SECRET=x"),
                         S("NOTIFY_SOCKET=/n"), S("RANK=77"), S("LISTEN_FDS=1"),
                         S("WORLD_SIZE=9"),     NULL};
    char *env[] = {S("A=2"), S("RANK=5"), S("LOCAL_RANK=5"), S("DS_JOB_ID=99"), S("MINE=yes")};
    char *command[] = {S("python"), S("train.py")};
    struct jobspec spec = {.command = command, .command_count = 2, .env = env, .env_count = 5};
    Ds__ShimLaunch l = DS__SHIM_LAUNCH__INIT;
    attempt_env_fill(&l, &order, &spec, &facts, inherited);
    assert_int_equal(l.n_argv, 2);
    assert_string_equal(l.argv[1], "train.py");
    assert_string_equal(l.workdir, "/ckpt/t00001-e00002");
    static const char *expected[][2] = {
        {"PATH", "/usr/bin"},
        {"A", "2"},
        {"MINE", "yes"},
        {"DS_JOB_ID", "12"},
        {"DS_ATTEMPT", "2"},
        {"DS_EPOCH", "2"},
        {"DS_CHECKPOINT_DIR", "/ckpt/t00001-e00002"},
        {"DS_TENSORBOARD_DIR", "/ckpt/tb"},
        {"DS_REPORT_SOCKET", "/s/report.sock"},
        {"DS_RUN_DIR", "/s/attempts/12-2"},
        {"DS_ADDR", "10.0.0.7"},
        {"WORLD_SIZE", "4"},
        {"LOCAL_WORLD_SIZE", "2"},
        {"NODE_RANK", "1"},
        {"MASTER_ADDR", "10.0.0.9"},
        {"MASTER_PORT", "29500"},
        {"CUDA_VISIBLE_DEVICES", "3,1"},
        {"OMP_NUM_THREADS", "4"},
        {"OPENBLAS_NUM_THREADS", "4"},
    };
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        assert_non_null(value(&l, expected[i][0]));
        assert_string_equal(value(&l, expected[i][0]), expected[i][1]);
    }
    static const char *absent[] = {"DS_SECRET",  "NOTIFY_SOCKET",  "LISTEN_FDS",       "RANK",
                                   "LOCAL_RANK", "DS_RESUME_PATH", "CUDA_DEVICE_ORDER"};
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++) {
        assert_null(value(&l, absent[i]));
    }
    assert_false(l.has_uid);
    attempt_env_free(&l);
}

/* A training job runs dstrain on its spec; with more ranks than cores each has one thread; threads
 * that are set stay; resuming is said. */
static void test_environment_of_training(void **state)
{
    (void)state;
    make_order();
    Ds__ResumePoint resume = DS__RESUME_POINT__INIT;
    resume.step = 100;
    resume.path = order.workdir;
    order.resume = &resume;
    facts.cores = 1;
    facts.nvidia = true;
    char *inherited[] = {NULL};
    char *env[] = {S("OMP_NUM_THREADS=7")};
    struct jobspec spec = {.has_train = true, .env = env, .env_count = 1};
    Ds__ShimLaunch l = DS__SHIM_LAUNCH__INIT;
    attempt_env_fill(&l, &order, &spec, &facts, inherited);
    assert_int_equal(l.n_argv, 3);
    assert_string_equal(l.argv[0], "/bin/dstrain");
    assert_string_equal(l.argv[1], "run");
    assert_string_equal(l.argv[2], "/s/attempts/12-2/spec.json");
    assert_string_equal(value(&l, "OMP_NUM_THREADS"), "7");
    assert_string_equal(value(&l, "OPENBLAS_NUM_THREADS"), "1");
    assert_string_equal(value(&l, "DS_RESUME_STEP"), "100");
    assert_string_equal(value(&l, "DS_RESUME_PATH"), "/ckpt/t00001-e00002");
    assert_string_equal(value(&l, "CUDA_DEVICE_ORDER"), "PCI_BUS_ID");
    attempt_env_free(&l);
    order.n_gpu_index = 0;
    order.resume = NULL;
    attempt_env_fill(&l, &order, &spec, &facts, inherited);
    assert_string_equal(value(&l, "CUDA_VISIBLE_DEVICES"), "");
    assert_string_equal(value(&l, "LOCAL_WORLD_SIZE"), "1");
    attempt_env_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_environment_of_training),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
