/* dssim run */
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "daemon/sim/chaos.h"
#include "daemon/sim/cmd.h"
#include "daemon/sim/cmd_plot.h"
#include "daemon/sim/cmd_sizes.h"
#include "daemon/sim/fleet.h"
#include "daemon/sim/report.h"
#include "daemon/sim/scenario.h"
#include "lib/clock.h"
#include "lib/mem.h"

#define SET_MAX 64

static const char usage[] =
    "usage: dssim run [--seed S] [--verbose]\n"
    "       dssim run --scenario F [--faults F] [--set K=V]... [--seed S] [-o FORMAT] "
    "[--plot[=FILE]]\n"
    "One simulated cluster from one seed; the same seed gives the same run to the bit.\n"
    "Without a scenario: a random small cluster under every fault, watched by every checker.\n"
    "\n"
    "  --scenario F    a scenario file, or the name of one of etc/sim, such as deepseek-v3\n"
    "  --faults F      the faults of another scenario (llama3, meta-rsc1, fire-flyer), or none\n"
    "  --set K=V       another value of the scenario, such as cluster.nodes=512\n"
    "  --nodes N,N...  the training job on other numbers of nodes, a row each, beside the formula\n"
    "  --seed S        where chance begins (default 1)\n"
    "  -o FORMAT       table (default), csv or json\n"
    "  --plot[=FILE]   utilisation and queue, in the terminal or as .png or .svg (gnuplot)\n"
    "  --verbose       tell what happens\n";

struct options {
    const char *scenario, *faults;
    const char *set[SET_MAX];
    size_t set_count;
    struct sizes sizes; /* --nodes; none: as the scenario has it */
    uint64_t seed;
    enum report_format format;
    const char *plot_path;
    bool plot, verbose, finished;
};

static const struct option long_options[] = {
    {"scenario", required_argument, NULL, 'f'}, {"faults", required_argument, NULL, 'F'},
    {"nodes", required_argument, NULL, 'n'},    {"set", required_argument, NULL, 'S'},
    {"seed", required_argument, NULL, 's'},     {"output", required_argument, NULL, 'o'},
    {"verbose", no_argument, NULL, 'v'},        {"plot", optional_argument, NULL, 'l'},
    {"help", no_argument, NULL, 'h'},           {NULL, 0, NULL, 0},
};

static int parse(int argc, char **argv, struct options *o, struct err *err)
{
    int c;
    while ((c = getopt_long(argc, argv, "ho:v", long_options, NULL)) != -1) {
        switch (c) {
        case 'f':
            o->scenario = optarg;
            break;
        case 'F':
            o->faults = optarg;
            break;
        case 'S':
            if (o->set_count == SET_MAX) {
                return err_set(err, ERR_USAGE, "more than %d --set", SET_MAX);
            }
            o->set[o->set_count++] = optarg;
            break;
        case 'n':
            TRY(sizes_parse(optarg, &o->sizes, err));
            break;
        case 's':
            TRY(cmd_number("--seed", optarg, 0, UINT64_MAX / 2, &o->seed, err));
            break;
        case 'o':
            TRY(cmd_format(optarg, &o->format, err));
            break;
        case 'l':
            o->plot = true;
            o->plot_path = optarg;
            break;
        case 'v':
            o->verbose = true;
            break;
        case 'h':
            fputs(usage, stdout);
            o->finished = true;
            return 0;
        default:
            return err_set(err, ERR_USAGE, "wrong use (dssim run --help)");
        }
    }
    if (optind < argc) {
        return err_set(err, ERR_USAGE, "unexpected argument '%s' (dssim run --help)", argv[optind]);
    }
    if (o->plot && o->plot_path == NULL && o->format != REPORT_TABLE) {
        return err_set(err, ERR_USAGE,
                       "--plot draws in the terminal, amid the output of -o: give --plot=FILE");
    }
    if (o->scenario == NULL &&
        (o->faults != NULL || o->set_count > 0 || o->plot || o->sizes.count > 0)) {
        return err_set(err, ERR_USAGE,
                       "--faults, --set, --nodes and --plot belong to a --scenario");
    }
    return 0;
}

static int draw(const struct options *o, const struct scenario *s, const struct fleet_result *r,
                struct err *err)
{
    struct plot plot;
    struct plot_span *spans = mem_alloc_array(r->span_count + 1, sizeof *spans);
    for (size_t i = 0; i < r->span_count; i++) {
        const struct fleet_span *span = &r->spans[i];
        spans[i] = (struct plot_span){span->wait_ms, span->from_ms, span->to_ms, span->gpus};
    }
    plot_init(&plot, s->name, 0, r->end_ms, PLOT_POINTS);
    plot_add(&plot, s->name, spans, r->span_count, (uint64_t)s->setup.nodes * s->setup.gpus);
    int rc = cmd_plot(&plot, o->plot_path, err);
    plot_fini(&plot);
    free(spans);
    return rc;
}

static int refused(const struct scenario *s, struct err *err)
{
    for (size_t i = 0; i < s->job_count; i++) {
        const struct fleet_job *job = &s->jobs[i];
        if (job->refused != NULL) {
            return err_set(err, ERR_CONFIG, "scenario %s: %s", s->name, job->refused);
        }
    }
    return 0;
}

static int run_scenario(const struct options *o, struct err *err)
{
    struct scenario scenario;
    struct fleet_result result;
    TRY(scenario_load(&scenario, o->scenario, o->faults, o->set, o->set_count, err));
    scenario.setup.seed = o->seed;
    scenario.setup.verbose = o->verbose;
    int64_t began_ms = clock_boot_ms();
    int rc = fleet_run(&scenario.setup, scenario.jobs, scenario.job_count, &result, err);
    if (rc == 0) {
        rc = refused(&scenario, err);
    }
    if (rc == 0) {
        struct report report;
        struct buf text = {0};
        report_make(&report, &scenario, &result);
        report_write(&text, o->format, &report, &scenario, &result);
        fwrite(text.data, 1, text.len, stdout);
        buf_fini(&text);
        if (o->format == REPORT_TABLE) {
            printf("simulated in            %.1f s\n", (double)(clock_boot_ms() - began_ms) / 1000);
        }
        if (o->plot || (o->format == REPORT_TABLE && isatty(STDOUT_FILENO))) {
            rc = draw(o, &scenario, &result, err);
        }
        if (rc == 0) {
            rc = report_check(&report, &scenario, &result, err);
        }
        if (rc == 0 && scenario.setup.horizon_ms == 0 && report.completed < report.jobs) {
            rc = err_set(err, ERR_CONFLICT, "%" PRIu64 " of %" PRIu64 " jobs did not complete",
                         report.jobs - report.completed, report.jobs);
        }
    }
    fleet_result_fini(&result);
    scenario_fini(&scenario);
    return rc;
}

int cmd_run(int argc, char **argv)
{
    struct err err = {0};
    struct options o = {.seed = 1};
    if (parse(argc, argv, &o, &err) != 0) {
        return cmd_fail(&err);
    }
    if (o.finished) {
        return 0;
    }
    if (o.scenario == NULL) {
        chaos_run(o.seed, o.verbose, false, NULL);
        return 0;
    }
    o.sizes.scenario = o.scenario;
    o.sizes.faults = o.faults;
    o.sizes.set = o.set;
    o.sizes.set_count = o.set_count;
    o.sizes.seed = o.seed;
    int rc = o.sizes.count > 0 ? sizes_run(&o.sizes, o.format, &err) : run_scenario(&o, &err);
    if (rc != 0) {
        fflush(stdout);
        cmd_fail(&err);
        return err.code == ERR_USAGE ? 2 : err.code == ERR_NOT_FOUND ? 3 : 1;
    }
    return 0;
}
