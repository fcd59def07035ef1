#include "daemon/config.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/file.h"
#include "lib/mem.h"
#include "lib/yaml.h"
#include "proto/jobspec.h"

#define STATE_DIR "/var/lib/ds"
#define SOCKET    "/run/ds/dsd.sock"
#define LISTEN    "127.0.0.1:6818"
#define PRICES    "/etc/ds/prices.yaml"

/* The file as it stands. Durations and counts land in the struct config they are for. */
struct file {
    struct config *config;
    char *cluster, *state_dir, *socket, *listen, *checkpoint_dir, *prices; /* owned */
    int log_level;
    uint32_t connections, in_flight;
    struct {
        int64_t heartbeat, lease, recovering, stop_grace, first_frame, stalled;
        int64_t user_fault, backoff_first, backoff_max;
    } times;
    struct sched_config sched;
};

static int read_duration(const struct yaml_item *item, void *place, struct err *err)
{
    uint64_t ms;
    struct err why = {0};
    if (item->kind != YAML_ITEM_SCALAR) {
        return yaml_refuse(item, err, "is not a duration (allowed: such as 500ms, 30s, 5m, 2h)");
    }
    if (duration_parse(item->text, &ms, &why) != 0) {
        return yaml_refuse(item, err, "%s", why.text);
    }
    if (ms < 1 || ms > 30ull * 24 * 3600 * 1000) {
        return yaml_refuse(item, err, "%s is out of range (allowed: 1ms to 30d)", item->text);
    }
    *(int64_t *)place = (int64_t)ms;
    return 0;
}

static bool is_cluster_name(const char *text)
{
    size_t len = strlen(text);
    return len > 0 && len < 64 && strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

#define TIME(name, field)                                                                          \
    {                                                                                              \
        .key = name, .type = YAML_CUSTOM, .offset = offsetof(struct file, times.field),            \
        .read = read_duration                                                                      \
    }
#define TEXT(name)                                                                                 \
    {                                                                                              \
        .key = #name, .type = YAML_TEXT, .offset = offsetof(struct file, name)                     \
    }

static const char *const levels[] = {"error", "warn", "info", "debug", NULL};
static const struct yaml_field restart_fields[] = {
    TIME("user_fault", user_fault),
    TIME("backoff_first", backoff_first),
    TIME("backoff_max", backoff_max),
    {.key = NULL},
};
static const struct yaml_field limit_fields[] = {
    {.key = "connections",
     .type = YAML_U32,
     .offset = offsetof(struct file, connections),
     .low = 1,
     .high = 1000000},
    {.key = "in_flight",
     .type = YAML_U32,
     .offset = offsetof(struct file, in_flight),
     .low = 1,
     .high = 100000},
    TIME("first_frame", first_frame),
    TIME("stalled", stalled),
    {.key = NULL},
};
static const struct yaml_field fields[] = {
    {.key = "cluster",
     .type = YAML_TEXT,
     .offset = offsetof(struct file, cluster),
     .valid = is_cluster_name,
     .allowed = "1 to 63 of a-z 0-9 -"},
    TEXT(state_dir),
    TEXT(socket),
    TEXT(listen),
    TEXT(checkpoint_dir),
    TEXT(prices),
    {.key = "log_level",
     .type = YAML_CHOICE,
     .offset = offsetof(struct file, log_level),
     .choices = levels},
    TIME("heartbeat", heartbeat),
    TIME("lease", lease),
    TIME("recovering", recovering),
    TIME("stop_grace", stop_grace),
    {.key = "restart", .type = YAML_MAP, .offset = 0, .fields = restart_fields},
    {.key = "limits", .type = YAML_MAP, .offset = 0, .fields = limit_fields},
    {.key = "scheduler",
     .type = YAML_MAP,
     .offset = offsetof(struct file, sched),
     .fields = sched_config_fields},
    {.key = NULL},
};

static void file_defaults(struct file *f, struct config *c)
{
    core_config_default(&c->core);
    c->limits = conn_limits_default;
    *f = (struct file){.config = c,
                       .log_level = LOG_INFO,
                       .connections = (uint32_t)c->limits.connections_max,
                       .in_flight = c->limits.in_flight_max};
    f->times.heartbeat = c->core.heartbeat_ms;
    f->times.lease = c->core.lease_ms;
    f->times.recovering = c->core.recovering_ms;
    f->times.stop_grace = c->core.stop_grace_ms;
    f->times.user_fault = c->core.user_fault_ms;
    f->times.backoff_first = c->core.backoff_first_ms;
    f->times.backoff_max = c->core.backoff_max_ms;
    f->times.first_frame = c->limits.first_frame_ms;
    f->times.stalled = c->limits.stalled_ms;
    sched_config_default(&f->sched);
}

static void file_fini(struct file *f)
{
    free(f->cluster);
    free(f->state_dir);
    free(f->socket);
    free(f->listen);
    free(f->checkpoint_dir);
    free(f->prices);
    sched_config_fini(&f->sched);
}

/* ------------------------------------------------------------------ file and flags -> config */

static char *absolute(const char *path, const char *dir)
{
    if (path[0] == '/') {
        return mem_strdup(path);
    }
    return mem_printf("%s%s%s", dir, strcmp(dir, "/") == 0 ? "" : "/", path);
}

/* The flag wins over the file, the file over the default. */
static char *choose(const char *flag, const char *cwd, const char *in_file, const char *dir,
                    const char *fallback)
{
    if (flag != NULL) {
        return absolute(flag, cwd);
    }
    return in_file != NULL ? absolute(in_file, dir) : mem_strdup(fallback);
}

static int check_times(const struct core_config *core, const char *name, struct err *err)
{
    if (core->lease_ms < 2 * core->heartbeat_ms) {
        return err_set(
            err, ERR_CONFIG,
            "%s: lease is %lld ms and heartbeat %lld ms (a lease is at least two heartbeats)", name,
            (long long)core->lease_ms, (long long)core->heartbeat_ms);
    }
    if (core->backoff_max_ms < core->backoff_first_ms) {
        return err_set(err, ERR_CONFIG,
                       "%s: restart.backoff_max is less than restart.backoff_first", name);
    }
    return 0;
}

static int apply(struct config *c, const struct file *f, const struct config_flags *flags,
                 const char *name, const char *dir, struct err *err)
{
    char cwd[PATH_MAX];
    if (getcwd(cwd, sizeof cwd) == NULL) {
        return err_set_errno(err, "cannot tell the working folder");
    }
    c->core.heartbeat_ms = f->times.heartbeat;
    c->core.lease_ms = f->times.lease;
    c->core.recovering_ms = f->times.recovering;
    c->core.stop_grace_ms = f->times.stop_grace;
    c->core.user_fault_ms = f->times.user_fault;
    c->core.backoff_first_ms = f->times.backoff_first;
    c->core.backoff_max_ms = f->times.backoff_max;
    c->limits.connections_max = f->connections;
    c->limits.in_flight_max = f->in_flight;
    c->limits.first_frame_ms = f->times.first_frame;
    c->limits.stalled_ms = f->times.stalled;
    c->log_level = (enum log_level)f->log_level;
    if (f->cluster != NULL) {
        snprintf(c->core.cluster, sizeof c->core.cluster, "%s", f->cluster);
    }

    c->state_dir = choose(flags->state_dir, cwd, f->state_dir, dir, STATE_DIR);
    c->socket = choose(flags->socket, cwd, f->socket, dir, SOCKET);
    c->prices =
        choose(flags->prices, cwd, f->prices, dir, access(PRICES, F_OK) == 0 ? PRICES : NULL);
    const char *listen = flags->listen != NULL ? flags->listen
                         : f->listen != NULL   ? f->listen
                                               : LISTEN;
    c->listen = strcmp(listen, "off") == 0 ? NULL : mem_strdup(listen);

    char *checkpoints = f->checkpoint_dir != NULL ? absolute(f->checkpoint_dir, dir)
                                                  : mem_printf("%s/checkpoints", c->state_dir);
    int len = snprintf(c->core.checkpoint_dir, sizeof c->core.checkpoint_dir, "%s", checkpoints);
    free(checkpoints);
    if (len >= (int)sizeof c->core.checkpoint_dir) {
        return err_set(err, ERR_CONFIG, "%s: checkpoint_dir has more than %zu bytes", name,
                       sizeof c->core.checkpoint_dir - 1);
    }
    return check_times(&c->core, name, err);
}

int config_parse(struct config *c, const char *yaml, size_t len, const char *name, const char *dir,
                 const struct config_flags *flags, struct err *err)
{
    *c = (struct config){0};
    struct file file;
    file_defaults(&file, c);
    struct yaml_tree tree = {0};
    int rc = yaml_load(&tree, yaml, len, name, err);
    if (rc == 0 && tree.root != NULL && tree.root->kind != YAML_ITEM_NULL) {
        rc = yaml_read(tree.root, fields, &file, err);
    }
    if (rc == 0) {
        rc = sched_config_finish(&file.sched, name, err);
    }
    if (rc == 0) {
        c->sched = file.sched;
        c->core.policy = file.sched.policy;
        file.sched = (struct sched_config){0};
        rc = apply(c, &file, flags, name, dir, err);
    }
    yaml_fini(&tree);
    file_fini(&file);
    if (rc != 0) {
        config_fini(c);
        if (err != NULL) {
            err->code = ERR_CONFIG;
        }
        return ERR_CONFIG;
    }
    return 0;
}

static void folder_of(const char *path, char *dir, size_t bytes)
{
    snprintf(dir, bytes, "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash == dir) {
        slash++;
    }
    *slash = 0;
}

int config_load(struct config *c, const struct config_flags *flags, struct err *err)
{
    const char *path = flags->config != NULL ? flags->config : getenv("DS_CONFIG");
    if (path == NULL && access(CONFIG_FILE, F_OK) == 0) {
        path = CONFIG_FILE;
    }
    if (path == NULL) {
        return config_parse(c, "", 0, "built-in defaults", "/", flags, err);
    }
    *c = (struct config){0};
    char real[PATH_MAX];
    char dir[PATH_MAX];
    struct buf text = {0};
    if (realpath(path, real) == NULL) {
        return err_set_errno(err, "cannot read the configuration %s", path);
    }
    folder_of(real, dir, sizeof dir);
    int rc = file_read(real, YAML_BYTES_MAX, &text, err);
    if (rc == 0) {
        rc = config_parse(c, (const char *)text.data, text.len, path, dir, flags, err);
    }
    buf_fini(&text);
    return rc;
}

void config_fini(struct config *c)
{
    free(c->state_dir);
    free(c->socket);
    free(c->listen);
    free(c->prices);
    sched_config_fini(&c->sched);
    *c = (struct config){0};
}
