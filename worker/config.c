#include "worker/config.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/file.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/yaml.h"
#include "proto/jobspec.h"

static const char usage[] =
    "usage: dsworkerd [options]\n"
    "Runs the ranks of jobs on this node, for the coordinator dsd.\n"
    "\n"
    "  --config FILE           settings (default " CONFIG_FILE
    ", when it is there; or $DS_CONFIG)\n"
    "  --server ADDR           coordinator: host:port, or the path of its socket "
    "(default " CONFIG_SERVER "; or $DS_SERVER)\n"
    "  --state-dir DIR         where attempts and logs are kept (default " CONFIG_STATE_DIR ")\n"
    "  --name NAME             of this node (default: the host name)\n"
    "  --accelerators M:N      declare N accelerators of model M, for example cpu:2; may be "
    "repeated;\n"
    "                          `auto` asks the NVIDIA driver (default)\n"
    "  --addr ADDR             where other nodes reach this one (default: as seen by the "
    "coordinator)\n"
    "  --log-level LEVEL       error, warn, info (default) or debug\n"
    "  -h, --help; --version\n"
    "\n"
    "SIGTERM ends dsworkerd and leaves the ranks running: the next one finds them again.\n"
    "SIGINT (Ctrl-C) stops the ranks first.\n";

const char *config_usage(void)
{
    return usage;
}

void config_fini(struct config *c)
{
    free(c->name);
    free(c->server);
    free(c->state_dir);
    free(c->addr);
    free(c->dstrain);
    free(c->dsshim);
    free(c->nvml_library);
    free(c->kmsg);
    for (size_t i = 0; i < c->accelerator_count; i++) {
        free(c->accelerators[i].model);
    }
    free(c->accelerators);
    *c = (struct config){0};
}

static void set(char **place, const char *value)
{
    free(*place);
    *place = mem_strdup(value);
}

/* ---- accelerators */

static void add_accelerators(struct config *c, const char *model, uint32_t count)
{
    size_t capacity = c->accelerator_count;
    void *items = c->accelerators;
    mem_grow(&items, &capacity, c->accelerator_count + 1, sizeof *c->accelerators);
    c->accelerators = items;
    c->accelerators[c->accelerator_count++] = (struct config_accelerator){mem_strdup(model), count};
    c->accelerators_auto = false;
}

static void clear_accelerators(struct config *c)
{
    for (size_t i = 0; i < c->accelerator_count; i++) {
        free(c->accelerators[i].model);
    }
    free(c->accelerators);
    c->accelerators = NULL;
    c->accelerator_count = 0;
}

static bool is_model(const char *text)
{
    size_t len = strlen(text);
    return len > 0 && len <= 63 &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ._-") ==
               len;
}

static const struct yaml_field accelerator_fields[] = {
    {.key = "model",
     .type = YAML_TEXT,
     .offset = offsetof(struct config_accelerator, model),
     .required = true,
     .valid = is_model,
     .allowed = "letters, digits, space . _ -"},
    {.key = "count",
     .type = YAML_U32,
     .offset = offsetof(struct config_accelerator, count),
     .required = true,
     .low = 0,
     .high = CONFIG_ACCELERATOR_MAX},
    {.key = NULL},
};

static int read_accelerator(const struct yaml_item *item, struct config *c, struct err *err)
{
    struct config_accelerator a = {0};
    int rc = yaml_read(item, accelerator_fields, &a, err);
    if (rc == 0) {
        add_accelerators(c, a.model, a.count);
    }
    free(a.model);
    return rc;
}

static int read_accelerators(const struct yaml_item *item, void *place, struct err *err)
{
    struct config *c = place;
    if (item->kind == YAML_ITEM_MAP) {
        return read_accelerator(item, c, err);
    }
    if (item->kind == YAML_ITEM_LIST) {
        for (size_t i = 0; i < item->count; i++) {
            TRY(read_accelerator(item->items[i], c, err));
        }
        return 0;
    }
    if (item->kind == YAML_ITEM_SCALAR && strcmp(item->text, "auto") == 0) {
        c->accelerators_auto = true;
        return 0;
    }
    return yaml_refuse(item, err,
                       "not understood (allowed: auto, {model: M, count: N}, or a list of those)");
}

/* ---- the file */

static int read_orphan_timeout(const struct yaml_item *item, void *place, struct err *err)
{
    struct err why = {.text = "not a duration (allowed: such as 90s, 30m, 2h; 0 is never)"};
    if (item->kind != YAML_ITEM_SCALAR || duration_parse(item->text, place, &why) != 0) {
        return yaml_refuse(item, err, "%s", why.text);
    }
    return 0;
}

static int read_health_interval(const struct yaml_item *item, void *place, struct err *err)
{
    struct err why = {0};
    uint64_t *ms = place;
    if (item->kind != YAML_ITEM_SCALAR || duration_parse(item->text, ms, &why) != 0 || *ms < 100 ||
        *ms > 3600000) {
        return yaml_refuse(item, err, "not an interval (allowed: 100ms to 1h, such as 30s)");
    }
    return 0;
}

static const struct yaml_field log_fields[] = {
    {.key = "file_mib",
     .type = YAML_U64,
     .offset = offsetof(struct config, log_file_mib),
     .low = 1,
     .high = 1024 * 1024},
    {.key = "files",
     .type = YAML_U32,
     .offset = offsetof(struct config, log_files),
     .low = 1,
     .high = 1000},
    {.key = "total_mib",
     .type = YAML_U64,
     .offset = offsetof(struct config, log_total_mib),
     .low = 1,
     .high = 1u << 30},
    {.key = NULL},
};
static const struct yaml_field fields[] = {
    {.key = "name", .type = YAML_TEXT, .offset = offsetof(struct config, name)},
    {.key = "server", .type = YAML_TEXT, .offset = offsetof(struct config, server)},
    {.key = "state_dir", .type = YAML_TEXT, .offset = offsetof(struct config, state_dir)},
    {.key = "addr", .type = YAML_TEXT, .offset = offsetof(struct config, addr)},
    {.key = "dstrain", .type = YAML_TEXT, .offset = offsetof(struct config, dstrain)},
    {.key = "nvml_library", .type = YAML_TEXT, .offset = offsetof(struct config, nvml_library)},
    {.key = "kmsg", .type = YAML_TEXT, .offset = offsetof(struct config, kmsg)},
    {.key = "health_interval",
     .type = YAML_CUSTOM,
     .offset = offsetof(struct config, health_interval_ms),
     .read = read_health_interval},
    {.key = "accelerators", .type = YAML_CUSTOM, .offset = 0, .read = read_accelerators},
    {.key = "orphan_timeout",
     .type = YAML_CUSTOM,
     .offset = offsetof(struct config, orphan_timeout_ms),
     .read = read_orphan_timeout},
    {.key = "logs", .type = YAML_MAP, .offset = 0, .fields = log_fields},
    {.key = NULL},
};

static int read_file(struct config *c, const char *path, struct err *err)
{
    struct buf text = {0};
    struct yaml_tree tree = {0};
    int rc = file_read(path, YAML_BYTES_MAX, &text, err);
    if (rc == 0) {
        rc = yaml_load(&tree, (const char *)text.data, text.len, path, err);
    }
    if (rc == 0 && tree.root->kind != YAML_ITEM_NULL) {
        rc = yaml_read(tree.root, fields, c, err);
    }
    yaml_fini(&tree);
    buf_fini(&text);
    return rc == 0 ? 0 : ERR_CONFIG;
}

/* ---- defaults and checks */

static void default_name(struct config *c)
{
    char host[256] = "node";
    gethostname(host, sizeof host - 1);
    for (char *p = host; *p != 0; p++) {
        *p = *p >= 'A' && *p <= 'Z' ? (char)(*p + 32) : *p;
    }
    c->name = mem_strdup(host);
}

/* Programs are looked for beside our own. */
static char *beside(const char *name)
{
    char self[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    if (len <= 0) {
        return mem_strdup(name);
    }
    self[len] = 0;
    *strrchr(self, '/') = 0;
    return mem_printf("%s/%s", self, name);
}

static void make_absolute(char **path)
{
    char cwd[PATH_MAX];
    if (**path != '/' && getcwd(cwd, sizeof cwd) != NULL) {
        char *full = mem_printf("%s/%s", cwd, *path);
        free(*path);
        *path = full;
    }
}

static bool is_node_name(const char *name)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t len = strlen(name);
    return len > 0 && len <= 63 && strspn(name, allowed) == len && name[0] != '.' &&
           name[0] != '_' && name[0] != '-';
}

static int check_server(const char *server, struct err *err)
{
    if (strchr(server, '/') != NULL) {
        struct sockaddr_un un;
        return strlen(server) < sizeof un.sun_path
                   ? 0
                   : err_set(err, ERR_CONFIG,
                             "server %s: the path of a socket has at most %zu bytes", server,
                             sizeof un.sun_path - 1);
    }
    const char *colon = strrchr(server, ':');
    char *end = NULL;
    long port = colon != NULL ? strtol(colon + 1, &end, 10) : 0;
    if (colon == NULL || colon == server || colon[1] == 0 || *end != 0 || port < 1 ||
        port > 65535) {
        return err_set(err, ERR_CONFIG, "server %s: neither host:port nor the path of a socket",
                       server);
    }
    return 0;
}

static int finish(struct config *c, struct err *err)
{
    if (c->name == NULL) {
        default_name(c);
    }
    if (!is_node_name(c->name)) {
        return err_set(
            err, ERR_CONFIG,
            "name %s: not a node name (a-z, 0-9, then also . _ -; at most 63; set it with --name)",
            c->name);
    }
    if (c->server == NULL) {
        c->server = mem_strdup(CONFIG_SERVER);
    }
    TRY(check_server(c->server, err));
    if (c->state_dir == NULL) {
        c->state_dir = mem_strdup(CONFIG_STATE_DIR);
    }
    make_absolute(&c->state_dir);
    c->dsshim = beside("dsshim");
    if (c->dstrain == NULL) {
        c->dstrain = beside("dstrain");
    }
    make_absolute(&c->dstrain);
    if (c->nvml_library == NULL) {
        c->nvml_library = mem_strdup("libnvidia-ml.so.1");
    }
    if (c->kmsg == NULL) {
        c->kmsg = mem_strdup("/dev/kmsg");
    }
    return 0;
}

/* ---- the command line */

enum {
    OPT_CONFIG = 256,
    OPT_SERVER,
    OPT_STATE_DIR,
    OPT_NAME,
    OPT_ACCELERATORS,
    OPT_ADDR,
    OPT_LOG_LEVEL,
    OPT_VERSION
};

static const struct option options[] = {
    {"config", required_argument, NULL, OPT_CONFIG},
    {"server", required_argument, NULL, OPT_SERVER},
    {"state-dir", required_argument, NULL, OPT_STATE_DIR},
    {"name", required_argument, NULL, OPT_NAME},
    {"accelerators", required_argument, NULL, OPT_ACCELERATORS},
    {"addr", required_argument, NULL, OPT_ADDR},
    {"log-level", required_argument, NULL, OPT_LOG_LEVEL},
    {"version", no_argument, NULL, OPT_VERSION},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* "cpu:2" or "auto". */
static int parse_accelerators(struct config *c, const char *text, struct err *err)
{
    if (strcmp(text, "auto") == 0) {
        c->accelerators_auto = true;
        return 0;
    }
    const char *colon = strrchr(text, ':');
    char *model = colon != NULL ? mem_printf("%.*s", (int)(colon - text), text) : mem_strdup("");
    char *end = NULL;
    unsigned long count = colon != NULL ? strtoul(colon + 1, &end, 10) : 0;
    bool good = colon != NULL && is_model(model) && colon[1] >= '0' && colon[1] <= '9' &&
                *end == 0 && count <= CONFIG_ACCELERATOR_MAX;
    if (good) {
        add_accelerators(c, model, (uint32_t)count);
    }
    free(model);
    return good ? 0
                : err_set(
                      err, ERR_USAGE,
                      "--accelerators %s: not understood (MODEL:COUNT, COUNT at most %u; or auto)",
                      text, CONFIG_ACCELERATOR_MAX);
}

static int parse_options(struct config *c, int argc, char **argv, const char **file,
                         struct err *err)
{
    optind = 1;
    opterr = 0;
    for (;;) {
        int at = optind;
        int option = getopt_long(argc, argv, ":h", options, NULL);
        switch (option) {
        case -1:
            return optind == argc
                       ? 0
                       : err_set(err, ERR_USAGE, "%s: no argument is expected (see --help)",
                                 argv[optind]);
        case OPT_CONFIG:
            *file = optarg;
            break;
        case OPT_SERVER:
            set(&c->server, optarg);
            break;
        case OPT_STATE_DIR:
            set(&c->state_dir, optarg);
            break;
        case OPT_NAME:
            set(&c->name, optarg);
            break;
        case OPT_ACCELERATORS:
            TRY(parse_accelerators(c, optarg, err));
            break;
        case OPT_ADDR:
            set(&c->addr, optarg);
            break;
        case OPT_LOG_LEVEL:
            c->log_level = log_level_parse(optarg);
            if (c->log_level < 0) {
                return err_set(err, ERR_USAGE,
                               "--log-level %s: not a level (error, warn, info, debug)", optarg);
            }
            break;
        case OPT_VERSION:
            c->version = true;
            return 0;
        case 'h':
            c->help = true;
            return 0;
        case ':':
            return err_set(err, ERR_USAGE, "%s needs a value (see --help)", argv[at]);
        default:
            return err_set(err, ERR_USAGE, "%s: no such option (see --help)", argv[at]);
        }
    }
}

static void take(char **to, char **from)
{
    if (*from != NULL) {
        free(*to);
        *to = *from;
        *from = NULL;
    }
}

/* What the command line says replaces what the file said. */
static void override(struct config *c, struct config *by)
{
    take(&c->name, &by->name);
    take(&c->server, &by->server);
    take(&c->state_dir, &by->state_dir);
    take(&c->addr, &by->addr);
    if (by->accelerators_auto || by->accelerator_count > 0) {
        clear_accelerators(c);
        c->accelerators = by->accelerators;
        c->accelerator_count = by->accelerator_count;
        c->accelerators_auto = by->accelerators_auto;
        by->accelerators = NULL;
        by->accelerator_count = 0;
    }
}

int config_load(struct config *c, int argc, char **argv, struct err *err)
{
    *c = (struct config){
        .accelerators_auto = true,
        .orphan_timeout_ms = 30 * 60 * 1000,
        .health_interval_ms = 30 * 1000,
        .log_file_mib = 16,
        .log_files = 4,
        .log_total_mib = 10 * 1024,
        .log_level = LOG_INFO,
    };
    struct config line = {.log_level = LOG_INFO};
    const char *file = getenv("DS_CONFIG");
    int rc = parse_options(&line, argc, argv, &file, err);
    c->help = line.help;
    c->version = line.version;
    c->log_level = line.log_level;
    if (rc != 0 || line.help || line.version) {
        config_fini(&line);
        return rc;
    }
    if (file == NULL && access(CONFIG_FILE, F_OK) == 0) {
        file = CONFIG_FILE;
    }
    if (file != NULL) {
        rc = read_file(c, file, err);
    }
    if (rc == 0 && getenv("DS_SERVER") != NULL) {
        set(&c->server, getenv("DS_SERVER"));
    }
    if (rc == 0) {
        override(c, &line);
        rc = finish(c, err);
    }
    config_fini(&line);
    return rc;
}
