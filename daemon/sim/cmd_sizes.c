/* dssim run --scenario F --nodes N,N...: the largest training job on other numbers of nodes, beside
 * the closed form. A sixteenth of spare nodes stands by, so that nobody waits for a repair (the
 * formula knows of no such wait). Smaller ones fail more seldom and are watched for longer, so that
 * all see about as many faults. */
#include "daemon/sim/cmd_sizes.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/sim/report.h"
#include "daemon/sim/scenario.h"
#include "lib/buf_json.h"

#define DAY_MS 86400000LL

struct row {
    uint32_t nodes, gpus;
    double days, mttf_hours, ettr, closed, goodput;
    uint64_t failures, restarts;
    uint64_t hash;
};

int sizes_parse(char *text, struct sizes *sizes, struct err *err)
{
    for (char *word; (word = strsep(&text, ",")) != NULL;) {
        uint64_t nodes = 0;
        TRY(cmd_number("--nodes", word, 1, 65536, &nodes, err));
        if (sizes->count == SIZES_MAX) {
            return err_set(err, ERR_USAGE, "more than %d sizes in --nodes", SIZES_MAX);
        }
        sizes->nodes[sizes->count++] = (uint32_t)nodes;
    }
    return 0;
}

static int resize(struct scenario *s, uint32_t nodes, struct err *err)
{
    struct fleet_job *largest = NULL;
    for (size_t i = 0; i < s->job_count; i++) {
        bool larger =
            s->jobs[i].has_train && (largest == NULL || s->jobs[i].nodes > largest->nodes);
        largest = larger ? &s->jobs[i] : largest;
    }
    if (largest == NULL) {
        return err_set(err, ERR_USAGE, "--nodes: scenario %s has no training job (one with tokens)",
                       s->name);
    }
    uint32_t before = largest->nodes;
    int64_t horizon_ms = s->setup.horizon_ms > 0 ? s->setup.horizon_ms : 60 * DAY_MS;
    for (size_t i = 0; i < s->job_count; i++) {
        s->jobs[i].nodes =
            &s->jobs[i] == largest || s->jobs[i].nodes > nodes ? nodes : s->jobs[i].nodes;
    }
    uint32_t spares = nodes / 16 > 0 ? nodes / 16 : 1;
    s->setup.nodes = nodes + spares;
    horizon_ms = (int64_t)((double)horizon_ms * before / nodes);
    s->setup.horizon_ms = horizon_ms > DAY_MS ? horizon_ms : DAY_MS;
    return 0;
}

static int run_size(const struct sizes *sizes, uint32_t nodes, struct row *row, struct err *err)
{
    struct scenario s;
    TRY(scenario_load(&s, sizes->scenario, sizes->faults, sizes->set, sizes->set_count, err));
    struct fleet_result result = {0};
    s.setup.seed = sizes->seed;
    int rc = resize(&s, nodes, err);
    if (rc == 0) {
        rc = fleet_run(&s.setup, s.jobs, s.job_count, &result, err);
    }
    if (rc == 0) {
        struct report report;
        report_make(&report, &s, &result);
        double rate = scenario_fault_rate(&s) * nodes;
        *row = (struct row){.nodes = nodes,
                            .gpus = nodes * s.setup.gpus,
                            .days = (double)result.end_ms / (double)DAY_MS,
                            .mttf_hours = rate > 0 ? 24 / rate : 0,
                            .ettr = report.ettr,
                            .closed = scenario_closed_form(&s),
                            .goodput = report.goodput,
                            .failures = result.failures,
                            .restarts = report.restarts,
                            .hash = result.hash};
    }
    fleet_result_fini(&result);
    scenario_fini(&s);
    return rc;
}

static void write_row(struct buf *out, enum report_format format, const struct row *r, bool first)
{
    double off = r->closed != 0 ? 100 * (r->ettr / r->closed - 1) : 0;
    switch (format) {
    case REPORT_JSON:
        buf_printf(out, "%s{\"nodes\":%u,\"gpus\":%u,\"days\":", first ? "" : ",", r->nodes,
                   r->gpus);
        buf_json_double(out, r->days);
        buf_append_str(out, ",\"ettr\":");
        buf_json_double(out, r->ettr);
        buf_append_str(out, ",\"ettr_closed_form\":");
        buf_json_double(out, r->closed);
        buf_append_str(out, ",\"goodput\":");
        buf_json_double(out, r->goodput);
        buf_printf(
            out, ",\"failures\":%" PRIu64 ",\"restarts\":%" PRIu64 ",\"hash\":\"%016" PRIx64 "\"}",
            r->failures, r->restarts, r->hash);
        break;
    case REPORT_CSV:
        buf_printf(out, "%u,%u,%.3f,%.3f,%.6f,%.6f,%.6f,%" PRIu64 ",%" PRIu64 ",%016" PRIx64 "\n",
                   r->nodes, r->gpus, r->days, r->mttf_hours, r->ettr, r->closed, r->goodput,
                   r->failures, r->restarts, r->hash);
        break;
    case REPORT_TABLE:
    default:
        buf_printf(out,
                   "%7u %7u %8.1f %7.1f h %7" PRIu64 " %9" PRIu64 " %8.4f %8.4f %+9.2f%% %8.4f\n",
                   r->nodes, r->gpus, r->days, r->mttf_hours, r->failures, r->restarts, r->ettr,
                   r->closed, off, r->goodput);
    }
}

int sizes_run(const struct sizes *sizes, enum report_format format, struct err *err)
{
    struct buf out = {0};
    if (format == REPORT_JSON) {
        buf_append_str(&out, "{\"schema\":\"ds/sim/v1\",\"items\":[");
    } else if (format == REPORT_CSV) {
        buf_append_str(&out, "nodes,gpus,days,mttf_hours,ettr,ettr_closed_form,goodput,failures,"
                             "restarts,hash\n");
    } else {
        buf_printf(&out, "%7s %7s %8s %9s %7s %9s %8s %8s %10s %8s\n", "NODES", "GPUS", "DAYS",
                   "MTTF", "FAULTS", "RESTARTS", "ETTR", "FORMULA", "OFF BY", "GOODPUT");
    }
    int rc = 0;
    for (size_t i = 0; i < sizes->count && rc == 0; i++) {
        struct row row;
        rc = run_size(sizes, sizes->nodes[i], &row, err);
        if (rc == 0) {
            write_row(&out, format, &row, i == 0);
        }
    }
    buf_append_str(&out, format == REPORT_JSON ? "]}\n" : "");
    if (rc == 0) {
        fwrite(out.data, 1, out.len, stdout);
    }
    buf_fini(&out);
    return rc;
}
