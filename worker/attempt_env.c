#include "worker/attempt_env.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/mem.h"
#include "worker/attempt_dir.h"

/* Of the worker's environment, what a rank must not see: its own are set afresh, a service
 * manager's would mislead it. */
static const char *const left_out[] = {
    "DS_*",           "NOTIFY_SOCKET", "LISTEN_*",           "WATCHDOG_*", "INVOCATION_ID",
    "JOURNAL_STREAM", "MAINPID",       "CREDENTIALS_*",      "SYSTEMD_*",  "MEMORY_PRESSURE_*",
    "RANK",           "LOCAL_RANK",    "UV_THREADPOOL_SIZE", "GROUP_RANK", "ROLE_RANK",
    "TORCHELASTIC_*",
};

static bool is_named(const char *assignment, const char *name)
{
    size_t len = strlen(name);
    return strncmp(assignment, name, len) == 0 && assignment[len] == '=';
}

static bool is_left_out(const char *assignment)
{
    for (size_t i = 0; i < sizeof left_out / sizeof left_out[0]; i++) {
        const char *pattern = left_out[i];
        size_t len = strlen(pattern);
        if (pattern[len - 1] == '*') {
            if (strncmp(assignment, pattern, len - 1) == 0) {
                return true;
            }
        } else if (is_named(assignment, pattern)) {
            return true;
        }
    }
    return false;
}

static char **find(const Ds__ShimLaunch *launch, const char *assignment)
{
    size_t len = (size_t)(strchrnul(assignment, '=') - assignment);
    for (size_t i = 0; i < launch->n_env; i++) {
        if (strncmp(launch->env[i], assignment, len) == 0 && launch->env[i][len] == '=') {
            return &launch->env[i];
        }
    }
    return NULL;
}

/* Takes the assignment over; a later one of the same name replaces an earlier. */
static void put(Ds__ShimLaunch *launch, char *assignment)
{
    char **known = find(launch, assignment);
    if (known != NULL) {
        free(*known);
        *known = assignment;
        return;
    }
    /* Grown in steps: capacity is the next multiple of 64. */
    if (launch->n_env % 64 == 0) {
        launch->env = mem_resize(launch->env, (launch->n_env + 64) * sizeof *launch->env);
    }
    launch->env[launch->n_env++] = assignment;
}

static void put_u64(Ds__ShimLaunch *launch, const char *name, uint64_t value)
{
    put(launch, mem_printf("%s=%" PRIu64, name, value));
}

static void put_text(Ds__ShimLaunch *launch, const char *name, const char *value)
{
    put(launch, mem_printf("%s=%s", name, value));
}

uint32_t attempt_rank_count(const Ds__AttemptStart *order)
{
    return order->n_gpu_index > 0 ? (uint32_t)order->n_gpu_index : 1;
}

/* Every rank sees all accelerators that its job has on this node and takes number LOCAL_RANK: what
 * launchers such as torchrun do. */
static void put_devices(Ds__ShimLaunch *launch, const Ds__AttemptStart *order, bool nvidia)
{
    struct buf list = {0};
    for (size_t i = 0; i < order->n_gpu_index; i++) {
        buf_printf(&list, "%s%" PRIu32, i > 0 ? "," : "", order->gpu_index[i]);
    }
    put_text(launch, "CUDA_VISIBLE_DEVICES", buf_cstr(&list));
    buf_fini(&list);
    if (nvidia) {
        put_text(launch, "CUDA_DEVICE_ORDER", "PCI_BUS_ID");
    }
}

static void put_threads(Ds__ShimLaunch *launch, uint32_t cores, uint32_t ranks)
{
    uint32_t threads = cores / ranks > 0 ? cores / ranks : 1;
    if (find(launch, "OMP_NUM_THREADS") == NULL) {
        put_u64(launch, "OMP_NUM_THREADS", threads);
    }
    if (find(launch, "OPENBLAS_NUM_THREADS") == NULL) {
        put_u64(launch, "OPENBLAS_NUM_THREADS", threads);
    }
}

/* Curves outlive the attempt and are looked at from other machines: beside the checkpoints of all
 * the job's attempts. */
static void put_tensorboard(Ds__ShimLaunch *launch, const char *checkpoint_dir)
{
    const char *slash = strrchr(checkpoint_dir, '/');
    if (slash != NULL) {
        char *path = mem_printf("%.*s/tb", (int)(slash - checkpoint_dir), checkpoint_dir);
        put_text(launch, "DS_TENSORBOARD_DIR", path);
        free(path);
    }
}

static void fill_env(Ds__ShimLaunch *launch, const Ds__AttemptStart *order,
                     const struct jobspec *spec, const struct attempt_facts *facts,
                     char *const *inherited)
{
    uint32_t ranks = attempt_rank_count(order);
    for (; *inherited != NULL; inherited++) {
        if (!is_left_out(*inherited)) {
            put(launch, mem_strdup(*inherited));
        }
    }
    if (facts->user != NULL) {
        put_text(launch, "HOME", facts->user->home);
        put_text(launch, "SHELL", facts->user->shell);
        put_text(launch, "USER", facts->user->name);
        put_text(launch, "LOGNAME", facts->user->name);
    }
    for (size_t i = 0; i < spec->env_count; i++) {
        if (!is_named(spec->env[i], "RANK") && !is_named(spec->env[i], "LOCAL_RANK")) {
            put(launch, mem_strdup(spec->env[i])); /* those two the shim adds */
        }
    }
    put_threads(launch, facts->cores, ranks);
    put_u64(launch, "DS_JOB_ID", order->job);
    put_u64(launch, "DS_ATTEMPT", order->epoch);
    if (order->has_array_job) {
        put_u64(launch, "DS_ARRAY_JOB_ID", order->array_job);
        put_u64(launch, "DS_ARRAY_INDEX", order->array_index);
        put_u64(launch, "DS_ARRAY_SIZE", order->array_size);
    }
    put_u64(launch, "DS_EPOCH", order->epoch);
    put_text(launch, "DS_JOB_NAME", order->name);
    put_text(launch, "DS_CHECKPOINT_DIR", order->checkpoint_dir);
    put_tensorboard(launch, order->checkpoint_dir);
    put_text(launch, "DS_REPORT_SOCKET", facts->report_socket);
    put_text(launch, "DS_RUN_DIR", facts->dir);
    if (spec->has_train) {
        char *flight = mem_printf("%s/" ATTEMPT_FLIGHT_DIR, facts->dir);
        put_text(launch, "DS_FLIGHT_DIR", flight);
        free(flight);
    }
    put_text(launch, "DS_ADDR", facts->addr);
    if (order->resume != NULL) {
        put_text(launch, "DS_RESUME_PATH", order->resume->path);
        put_u64(launch, "DS_RESUME_STEP", order->resume->step);
    }
    put_u64(launch, "WORLD_SIZE", order->world_size);
    put_u64(launch, "LOCAL_WORLD_SIZE", ranks);
    put_u64(launch, "NODE_RANK", order->node_rank);
    put_text(launch, "MASTER_ADDR", order->master_addr);
    put_u64(launch, "MASTER_PORT", order->master_port);
    put_devices(launch, order, facts->nvidia);
}

void attempt_env_fill(Ds__ShimLaunch *launch, const Ds__AttemptStart *order,
                      const struct jobspec *spec, const struct attempt_facts *facts,
                      char *const *inherited)
{
    launch->workdir = mem_strdup(order->workdir[0] != 0 ? order->workdir : facts->dir);
    if (spec->has_train) {
        launch->argv = mem_alloc_array(3, sizeof *launch->argv);
        launch->argv[launch->n_argv++] = mem_strdup(facts->dstrain);
        launch->argv[launch->n_argv++] = mem_strdup("run");
        launch->argv[launch->n_argv++] = mem_printf("%s/spec.json", facts->dir);
    } else {
        launch->argv = mem_alloc_array(spec->command_count, sizeof *launch->argv);
        for (size_t i = 0; i < spec->command_count; i++) {
            launch->argv[launch->n_argv++] = mem_strdup(spec->command[i]);
        }
    }
    if (facts->user != NULL) {
        launch->has_uid = true;
        launch->has_gid = true;
        launch->uid = facts->user->uid;
        launch->gid = facts->user->gid;
        launch->groups = facts->user->groups;
        launch->n_groups = facts->user->group_count;
    }
    fill_env(launch, order, spec, facts, inherited);
}

void attempt_env_free(Ds__ShimLaunch *launch)
{
    for (size_t i = 0; i < launch->n_argv; i++) {
        free(launch->argv[i]);
    }
    for (size_t i = 0; i < launch->n_env; i++) {
        free(launch->env[i]);
    }
    free(launch->argv);
    free(launch->env);
    free(launch->workdir);
    launch->n_argv = 0;
    launch->n_env = 0;
    launch->argv = NULL;
    launch->env = NULL;
    launch->workdir = NULL;
}
