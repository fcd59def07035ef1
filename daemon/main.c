/* dsd: the coordinator. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "daemon/dsd.h"
#include "daemon/prices.h"
#include "lib/log.h"
#include "lib/version.h"

static const char usage[] =
    "usage: dsd [options]\n"
    "The coordinator: tracks nodes and jobs, starts them, commits their checkpoints, keeps the "
    "ledger.\n"
    "\n"
    "  --config FILE       configuration (default $DS_CONFIG, else " CONFIG_FILE
    " when it is there)\n"
    "  --state-dir DIR     where the database lives (default /var/lib/ds)\n"
    "  --socket PATH       Unix socket (default /run/ds/dsd.sock)\n"
    "  --listen HOST:PORT  TCP on a loopback address, or off (default 127.0.0.1:6818)\n"
    "  --prices FILE       prices of accelerators (default /etc/ds/prices.yaml when it is there)\n"
    "  --check-config      say whether the configuration is right, and exit\n"
    "  --version           print the version, and exit\n"
    "  -h, --help          print this, and exit\n"
    "\n"
    "It stays in the foreground and logs to stderr. SIGTERM and SIGINT stop it; jobs go on without "
    "it.\n";

struct options {
    struct config_flags flags;
    bool check_config;
    bool finished; /* --help, --version */
};

enum {
    OPT_CONFIG = 256,
    OPT_STATE_DIR,
    OPT_SOCKET,
    OPT_LISTEN,
    OPT_PRICES,
    OPT_CHECK,
    OPT_VERSION
};

static const struct option options[] = {
    {"config", required_argument, NULL, OPT_CONFIG},
    {"state-dir", required_argument, NULL, OPT_STATE_DIR},
    {"socket", required_argument, NULL, OPT_SOCKET},
    {"listen", required_argument, NULL, OPT_LISTEN},
    {"prices", required_argument, NULL, OPT_PRICES},
    {"check-config", no_argument, NULL, OPT_CHECK},
    {"version", no_argument, NULL, OPT_VERSION},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static int parse(int argc, char **argv, struct options *o)
{
    int c;
    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (c) {
        case OPT_CONFIG:
            o->flags.config = optarg;
            break;
        case OPT_STATE_DIR:
            o->flags.state_dir = optarg;
            break;
        case OPT_SOCKET:
            o->flags.socket = optarg;
            break;
        case OPT_LISTEN:
            o->flags.listen = optarg;
            break;
        case OPT_PRICES:
            o->flags.prices = optarg;
            break;
        case OPT_CHECK:
            o->check_config = true;
            break;
        case OPT_VERSION:
            printf("dsd %s\n", DS_VERSION);
            o->finished = true;
            return 0;
        case 'h':
            fputs(usage, stdout);
            o->finished = true;
            return 0;
        default:
            return ERR_USAGE; /* getopt said why */
        }
    }
    if (optind < argc) {
        fprintf(stderr, "dsd: unexpected argument '%s' (dsd --help)\n", argv[optind]);
        return ERR_USAGE;
    }
    return 0;
}

/* Each worker and each user is a file descriptor. */
static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* One line, whatever a library put into the text. */
static int fail(struct err *err)
{
    for (char *p = err->text; *p != 0; p++) {
        *p = *p == '\n' ? ' ' : *p;
    }
    fprintf(stderr, "dsd: %s\n", err->text);
    return err_exit_status(err->code);
}

/* What else the start would trip over, as far as it can be told without starting. */
static int check(const struct config *config, struct err *err)
{
    if (config->listen != NULL) {
        TRY(listener_check_tcp(config->listen, err));
    }
    return config->prices != NULL ? prices_load(NULL, config->prices, err) : 0;
}

static int serve(const struct config *config)
{
    struct dsd dsd;
    struct err err = {0};
    int status = 0;
    signal(SIGPIPE, SIG_IGN);
    raise_file_limit();
    log_init("dsd", config->log_level);
    if (dsd_init(&dsd, config, &err) != 0) {
        status = fail(&err);
    } else {
        dsd_run(&dsd);
    }
    if (!dsd_fini(&dsd)) {
        _exit(status); /* a verification of a large checkpoint is not waited for */
    }
    if (status == 0) {
        log_info("stopped");
    }
    return status;
}

int main(int argc, char **argv)
{
    struct options o = {0};
    if (parse(argc, argv, &o) != 0) {
        return err_exit_status(ERR_USAGE);
    }
    if (o.finished) {
        return 0;
    }
    struct config config;
    struct err err = {0};
    if (config_load(&config, &o.flags, &err) != 0) {
        return fail(&err);
    }
    int status = 0;
    if (o.check_config && check(&config, &err) != 0) {
        status = fail(&err);
    } else if (o.check_config) {
        printf("configuration ok: cluster %s, state in %s, socket %s, listening on %s\n",
               config.core.cluster, config.state_dir, config.socket,
               config.listen != NULL ? config.listen : "no TCP address");
    } else {
        status = serve(&config);
    }
    config_fini(&config);
    return status;
}
