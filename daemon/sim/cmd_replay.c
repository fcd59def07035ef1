/* dssim replay and dssim whatif: one trace; the first against the yardsticks, the second on other
 * clusters and under other policies. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/config.h"
#include "daemon/sim/cmd.h"
#include "daemon/sim/cmd_plot.h"
#include "daemon/sim/replay.h"
#include "daemon/sim/summary.h"
#include "lib/mem.h"

#define VARIANTS_MAX 64

#define COMMON                                                                                     \
    "  --gpus-per-node G  accelerators of a node (default: the trace's header, else 8)\n"          \
    "  --procs-per-gpu P  processors of the trace that are one accelerator (default 1)\n"          \
    "  --estimates E      requested (default): what the trace's users asked for; actual\n"         \
    "  --seed S           where chance begins (default 1)\n"                                       \
    "  -o FORMAT          table (default), csv or json\n"                                          \
    "  --plot[=FILE]      utilisation and queue, in the terminal or as .png or .svg (gnuplot)\n"   \
    "  --verbose          tell what happens\n"

static const char replay_usage[] =
    "usage: dssim replay TRACE [options]\n"
    "The jobs of a trace (SWF, or CSV of job_id,submit,gpus,duration) through the core's "
    "scheduler,\n"
    "beside first-in-first-out and EASY backfill.\n"
    "\n"
    "  --nodes N          size of the cluster (default: the trace's header, else what fits)\n"
    "  --policy FILE      a dsd.yaml whose scheduler settings are used\n"
    "  --check            status 1 when mean wait or slowdown is worse than EASY's, or a gang "
    "starves\n" COMMON;
static const char whatif_usage[] =
    "usage: dssim whatif TRACE [--nodes N,N...] [--policy FILE]... [options]\n"
    "The same trace with other policies, on other numbers of nodes: one row for each combination;\n"
    "the first row is the default policy on the cluster of `dssim replay`.\n"
    "\n"
    "  --nodes N,N...     sizes of the cluster\n"
    "  --policy FILE      a dsd.yaml whose scheduler settings are used; may be given "
    "again\n" COMMON;

struct options {
    bool whatif, plot, verbose, perfect, check, finished;
    const char *trace, *plot_path;
    const char *policies[VARIANTS_MAX];
    size_t policy_count;
    uint32_t nodes[VARIANTS_MAX];
    size_t node_count;
    uint64_t gpus, procs_per_gpu, seed;
    enum report_format format;
};

static const struct option long_options[] = {
    {"nodes", required_argument, NULL, 'n'},
    {"gpus-per-node", required_argument, NULL, 'g'},
    {"procs-per-gpu", required_argument, NULL, 'P'},
    {"policy", required_argument, NULL, 'p'},
    {"estimates", required_argument, NULL, 'e'},
    {"seed", required_argument, NULL, 's'},
    {"output", required_argument, NULL, 'o'},
    {"plot", optional_argument, NULL, 'l'},
    {"check", no_argument, NULL, 'c'},
    {"verbose", no_argument, NULL, 'v'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static int parse_nodes(char *text, struct options *o, struct err *err)
{
    for (char *word; (word = strsep(&text, ",")) != NULL;) {
        uint64_t nodes = 0;
        TRY(cmd_number("--nodes", word, 1, 65536, &nodes, err));
        if (o->node_count == (o->whatif ? VARIANTS_MAX : 1)) {
            return err_set(err, ERR_USAGE,
                           o->whatif ? "more than 64 sizes in --nodes"
                                     : "one size in --nodes (dssim whatif takes "
                                       "several)");
        }
        o->nodes[o->node_count++] = (uint32_t)nodes;
    }
    return 0;
}

static int take(int c, struct options *o, struct err *err)
{
    switch (c) {
    case 'n':
        return parse_nodes(optarg, o, err);
    case 'g':
        return cmd_number("--gpus-per-node", optarg, 1, 64, &o->gpus, err);
    case 'P':
        return cmd_number("--procs-per-gpu", optarg, 1, 1000000, &o->procs_per_gpu, err);
    case 's':
        return cmd_number("--seed", optarg, 0, UINT64_MAX / 2, &o->seed, err);
    case 'o':
        return cmd_format(optarg, &o->format, err);
    case 'p':
        if (o->policy_count == (o->whatif ? VARIANTS_MAX : 1)) {
            return err_set(err, ERR_USAGE, "too many --policy");
        }
        o->policies[o->policy_count++] = optarg;
        return 0;
    case 'e':
        o->perfect = strcmp(optarg, "actual") == 0;
        return o->perfect || strcmp(optarg, "requested") == 0
                   ? 0
                   : err_set(err, ERR_USAGE, "--estimates: '%s' (allowed: requested, actual)",
                             optarg);
    case 'l':
        o->plot = true;
        o->plot_path = optarg;
        return 0;
    case 'c':
        o->check = true;
        return o->whatif ? err_set(err, ERR_USAGE, "--check belongs to replay") : 0;
    case 'v':
        o->verbose = true;
        return 0;
    case 'h':
        fputs(o->whatif ? whatif_usage : replay_usage, stdout);
        o->finished = true;
        return 0;
    default:
        return err_set(err, ERR_USAGE, "wrong use (dssim %s --help)",
                       o->whatif ? "whatif" : "replay");
    }
}

static int parse(int argc, char **argv, struct options *o, struct err *err)
{
    int c;
    while ((c = getopt_long(argc, argv, "ho:v", long_options, NULL)) != -1) {
        TRY(take(c, o, err));
    }
    if (o->finished) {
        return 0;
    }
    if (o->plot && o->plot_path == NULL && o->format != REPORT_TABLE) {
        return err_set(err, ERR_USAGE,
                       "--plot draws in the terminal, amid the output of -o: give --plot=FILE");
    }
    if (optind + 1 != argc) {
        return err_set(err, ERR_USAGE, "one trace is expected (dssim %s --help)",
                       o->whatif ? "whatif" : "replay");
    }
    o->trace = argv[optind];
    return 0;
}

/* The scheduler's settings of a dsd.yaml; path NULL: the defaults. */
static int load_policy(const char *path, struct core_config *core, struct err *err)
{
    core_config_default(core);
    if (path == NULL) {
        return 0;
    }
    struct config config = {0};
    struct config_flags flags = {.config = path};
    TRY(config_load(&config, &flags, err));
    *core = config.core;
    config_fini(&config);
    return 0;
}

/* ---- runs */
struct run {
    char variant[64];
    struct replay_setup setup;
    struct summary summary;
    struct fleet_result result;
};

static size_t count_refused(const struct summary *s)
{
    return s->never;
}

static int finish(const struct options *o, const struct trace *trace, const char *cluster,
                  struct run *runs, size_t run_count, struct summary *yards, size_t yard_count,
                  struct err *err)
{
    struct summary_row rows[VARIANTS_MAX + 2];
    size_t count = 0;
    for (size_t i = 0; i < run_count; i++) {
        rows[count++] =
            (struct summary_row){runs[i].variant[0] != 0 ? runs[i].variant : NULL,
                                 runs[i].setup.nodes, runs[i].setup.gpus, &runs[i].summary};
    }
    for (size_t i = 0; i < yard_count; i++) {
        rows[count++] =
            (struct summary_row){NULL, runs[0].setup.nodes, runs[0].setup.gpus, &yards[i]};
    }
    struct summary_head head = {.trace = o->trace,
                                .cluster = cluster,
                                .jobs = trace->count,
                                .skipped = trace->skipped,
                                .rounded = trace->rounded,
                                .compares = o->whatif,
                                .refused = count_refused(&runs[0].summary),
                                .seed = o->seed,
                                .result = &runs[0].result};
    struct buf text = {0};
    summary_write(&text, o->format, &head, rows, count);
    fwrite(text.data, 1, text.len, stdout);
    buf_fini(&text);
    if (!o->plot && !(o->format == REPORT_TABLE && isatty(STDOUT_FILENO))) {
        return 0;
    }
    struct plot plot;
    int64_t to_ms = 0;
    for (size_t i = 0; i < count; i++) {
        to_ms = rows[i].summary->makespan_ms > to_ms ? rows[i].summary->makespan_ms : to_ms;
    }
    plot_init(&plot, o->trace, 0, to_ms, PLOT_POINTS);
    size_t shown = o->plot_path != NULL ? count : 1;
    for (size_t i = 0; i < shown; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s%s%.40s", rows[i].summary->name,
                 rows[i].variant != NULL ? " " : "",
                 rows[i].variant != NULL ? rows[i].variant : "");
        cmd_plot_summary(&plot, rows[i].summary, (uint64_t)rows[i].nodes * rows[i].gpus);
        snprintf(plot.series[plot.count - 1].name, sizeof name, "%s", name);
    }
    int rc = cmd_plot(&plot, o->plot_path, err);
    plot_fini(&plot);
    return rc;
}

static int set_up(const struct options *o, const struct trace *trace, const char *policy,
                  uint32_t nodes, struct run *run, char *cluster, size_t bytes, struct err *err)
{
    *run = (struct run){.setup = {.nodes = nodes,
                                  .gpus = (uint32_t)o->gpus,
                                  .procs_per_gpu = o->procs_per_gpu,
                                  .perfect = o->perfect,
                                  .seed = o->seed,
                                  .verbose = o->verbose}};
    TRY(load_policy(policy, &run->setup.core, err));
    return replay_fit(&run->setup, trace, cluster, bytes, err);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* No worse than EASY (and a hundredth for ties that fall another way), and no gang starves. */
static int check(const struct summary *ds, const struct summary *easy, struct err *err)
{
    double slack_ms = 1000;
    if (ds->never > easy->never) {
        return err_set(err, ERR_CONFLICT, "%zu jobs never started, %zu with EASY", ds->never,
                       easy->never);
    }
    if (ds->wait_mean_ms > easy->wait_mean_ms * 1.01 + slack_ms) {
        return err_set(err, ERR_CONFLICT, "the mean wait is %.0f s, %.0f s with EASY",
                       ds->wait_mean_ms / 1000, easy->wait_mean_ms / 1000);
    }
    if (ds->slowdown_mean > easy->slowdown_mean * 1.01 + 0.01) {
        return err_set(err, ERR_CONFLICT, "the mean bounded slowdown is %.3f, %.3f with EASY",
                       ds->slowdown_mean, easy->slowdown_mean);
    }
    if (ds->gang_wait_max_ms > easy->gang_wait_max_ms * 2 + 3600000) {
        return err_set(err, ERR_CONFLICT, "a gang waited %.1f h, the longest with EASY %.1f h",
                       ds->gang_wait_max_ms / 3600000, easy->gang_wait_max_ms / 3600000);
    }
    return 0;
}

static int run_all(const struct options *o, const struct trace *trace, struct err *err)
{
    struct run *runs = mem_alloc_array(VARIANTS_MAX, sizeof *runs);
    struct summary yards[2] = {0};
    size_t count = 0, yard_count = 0;
    char cluster[256] = "", ignored[256];
    int rc = 0;
    size_t policies = o->policy_count > 0 ? o->policy_count : 1;
    size_t sizes = o->node_count > 0 ? o->node_count : 1;
    if (o->whatif) { /* what it is measured against */
        rc = set_up(o, trace, NULL, 0, &runs[count++], cluster, sizeof cluster, err);
    }
    for (size_t p = 0; p < policies && rc == 0; p++) {
        for (size_t n = 0; n < sizes && rc == 0; n++) {
            if (count == VARIANTS_MAX) {
                rc = err_set(err, ERR_USAGE, "more than %d combinations", VARIANTS_MAX);
                break;
            }
            struct run *run = &runs[count++];
            const char *policy = o->policy_count > 0 ? o->policies[p] : NULL;
            rc = set_up(o, trace, policy, o->nodes[n], run, o->whatif ? ignored : cluster,
                        sizeof cluster, err);
            snprintf(run->variant, sizeof run->variant, "%s",
                     policy != NULL ? base_name(policy)
                     : o->whatif    ? "other nodes"
                                    : "");
        }
    }
    if (o->whatif && rc == 0 && o->policy_count == 0 && o->node_count == 0) {
        rc =
            err_set(err, ERR_USAGE, "what if what? Give --nodes or --policy (dssim whatif --help)");
    }
    for (size_t i = 0; i < count && rc == 0; i++) {
        rc = replay_core(&runs[i].setup, trace, &runs[i].summary, &runs[i].result, err);
    }
    if (rc == 0 && !o->whatif) {
        replay_yard(&runs[0].setup, trace, "easy", &yards[yard_count++]);
        replay_yard(&runs[0].setup, trace, "fifo", &yards[yard_count++]);
    }
    if (rc == 0) {
        rc = finish(o, trace, cluster, runs, count, yards, yard_count, err);
    }
    if (rc == 0 && o->check) {
        rc = check(&runs[0].summary, &yards[0], err);
    }
    for (size_t i = 0; i < count; i++) {
        summary_fini(&runs[i].summary);
        fleet_result_fini(&runs[i].result);
    }
    summary_fini(&yards[0]);
    summary_fini(&yards[1]);
    free(runs);
    return rc;
}

static int replay_or_whatif(int argc, char **argv, bool whatif)
{
    struct err err = {0};
    struct options o = {.whatif = whatif, .seed = 1};
    struct trace trace = {0};
    int rc = parse(argc, argv, &o, &err);
    if (rc == 0 && !o.finished) {
        rc = trace_load(&trace, o.trace, &err);
        if (rc == 0) {
            rc = run_all(&o, &trace, &err);
        }
        trace_fini(&trace);
    }
    fflush(stdout);
    return rc != 0 ? cmd_fail(&err) : 0;
}

int cmd_replay(int argc, char **argv)
{
    return replay_or_whatif(argc, argv, false);
}

int cmd_whatif(int argc, char **argv)
{
    return replay_or_whatif(argc, argv, true);
}
