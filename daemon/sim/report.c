#include "daemon/sim/report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "lib/buf_json.h"

#define HOUR_MS 3600000.0
#define DAY_MS  86400000.0

int report_format_parse(const char *text)
{
    static const char *const names[] = {"table", "csv", "json"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(text, names[i]) == 0) {
            return i;
        }
    }
    return -1;
}

void report_number(struct buf *out, double value, int decimals)
{
    char text[64];
    int len = snprintf(text, sizeof text, "%.*f", decimals, fabs(value));
    int whole = len - (decimals > 0 ? decimals + 1 : 0);
    buf_append_str(out, value < 0 ? "-" : "");
    for (int i = 0; i < len; i++) {
        if (i > 0 && i < whole && (whole - i) % 3 == 0) {
            buf_append_str(out, ",");
        }
        buf_append(out, &text[i], 1);
    }
}

/* ---- the figures */
static struct report_stage *stage_of(struct report *r, const char *name)
{
    for (size_t i = 0; i < r->stage_count; i++) {
        if (strcmp(r->stages[i].stage, name) == 0) {
            return &r->stages[i];
        }
    }
    size_t max = sizeof r->stages / sizeof r->stages[0];
    if (r->stage_count < max) {
        r->stages[r->stage_count++].stage = name;
    }
    return &r->stages[r->stage_count - 1];
}

void report_make(struct report *r, const struct scenario *s, const struct fleet_result *result)
{
    *r = (struct report){.jobs = s->job_count};
    const struct audit *a = &result->audit;
    int64_t productive_ms = 0, capacity_ms = 0;
    for (size_t i = 0; i < a->job_count; i++) {
        const struct audit_job *job = &a->jobs[i];
        struct report_stage *stage = stage_of(r, job->stage);
        for (int c = 0; c < CATEGORY_COUNT; c++) {
            stage->gpu_ms += job->gpu_ms[c];
            r->gpu_ms += job->gpu_ms[c];
        }
        stage->cost_micro_usd += job->cost_micro_usd;
        r->cost_micro_usd += job->cost_micro_usd;
        productive_ms += job->gpu_ms[CATEGORY_PRODUCTIVE];
        r->restarts += job->epoch > 0 ? job->epoch - 1 : 0;
        r->completed += job->state == JOB_COMPLETED;
    }
    for (int c = 0; c < CATEGORY_COUNT; c++) {
        capacity_ms += a->gpu_ms[c];
    }
    double useful = 0, wall = 0;
    for (size_t i = 0; i < s->job_count; i++) {
        const struct fleet_job *job = &s->jobs[i];
        if (job->has_train && job->started_ms >= 0 && job->ended_ms > job->started_ms) {
            double gpus = (double)job->nodes * job->gpus;
            useful += gpus * (double)job->useful_ms;
            wall += gpus * (double)(job->ended_ms - job->started_ms);
        }
    }
    r->ettr = wall > 0 ? useful / wall : 1;
    r->goodput = r->gpu_ms > 0 ? (double)productive_ms / (double)r->gpu_ms : 0;
    r->utilisation = capacity_ms > 0 ? (double)r->gpu_ms / (double)capacity_ms : 0;
}

static double figure_of(enum figure figure, const struct report *r,
                        const struct fleet_result *result)
{
    switch (figure) {
    case FIGURE_ETTR:
        return r->ettr;
    case FIGURE_GOODPUT:
        return r->goodput;
    case FIGURE_UTILISATION:
        return r->utilisation;
    case FIGURE_FAILURES:
        return (double)result->failures;
    case FIGURE_RESTARTS:
        return (double)r->restarts;
    case FIGURE_PREEMPTIONS:
        return (double)result->audit.preemptions;
    case FIGURE_LOST_STEPS:
        return (double)result->audit.lost_steps;
    case FIGURE_COMPLETED:
        return (double)r->completed;
    case FIGURE_GPU_HOURS:
    default:
        return (double)r->gpu_ms / HOUR_MS;
    }
}

int report_check(const struct report *r, const struct scenario *s,
                 const struct fleet_result *result, struct err *err)
{
    for (size_t i = 0; i < s->expected_count; i++) {
        const struct expectation *e = &s->expected[i];
        double value = figure_of((enum figure)e->figure, r, result);
        if (value < e->low || value > e->high) {
            return err_set(err, ERR_CONFLICT, "%s is %g, the scenario expects %s %g",
                           expectation_figures[e->figure], value,
                           value < e->low ? "at least" : "at most",
                           value < e->low ? e->low : e->high);
        }
    }
    return 0;
}

/* ---- out */
static void write_json(struct buf *out, const struct report *r, const struct scenario *s,
                       const struct fleet_result *result)
{
    const struct audit *a = &result->audit;
    buf_append_str(out, "{\"schema\":\"ds/sim/v1\",\"scenario\":");
    buf_json_text(out, s->name);
    buf_append_str(out, ",\"stages\":[");
    for (size_t i = 0; i < r->stage_count; i++) {
        buf_append_str(out, i > 0 ? ",{\"stage\":" : "{\"stage\":");
        buf_json_text(out, r->stages[i].stage);
        buf_append_str(out, ",\"gpu_hours\":");
        buf_json_double(out, (double)r->stages[i].gpu_ms / HOUR_MS);
        buf_printf(out, ",\"cost_micro_usd\":%" PRId64 "}", r->stages[i].cost_micro_usd);
    }
    buf_append_str(out, "],\"gpu_hours\":");
    buf_json_double(out, (double)r->gpu_ms / HOUR_MS);
    buf_printf(out, ",\"cost_micro_usd\":%" PRId64 ",\"ettr\":", r->cost_micro_usd);
    buf_json_double(out, r->ettr);
    buf_append_str(out, ",\"ettr_closed_form\":");
    buf_json_double(out, scenario_closed_form(s));
    buf_append_str(out, ",\"goodput\":");
    buf_json_double(out, r->goodput);
    buf_append_str(out, ",\"utilisation\":");
    buf_json_double(out, r->utilisation);
    buf_printf(out,
               ",\"failures\":%" PRIu64 ",\"restarts\":%" PRIu64 ",\"lost_steps\":%" PRIu64
               ",\"preemptions\":%" PRIu64 ",\"checkpoints\":%" PRIu64 ",\"jobs\":%" PRIu64
               ",\"completed\":%" PRIu64 ",\"duration_ms\":%" PRId64 ",\"faults\":[",
               result->failures, r->restarts, a->lost_steps, a->preemptions, a->ckpts, r->jobs,
               r->completed, result->end_ms);
    for (size_t i = 0; i < s->setup.fault_count; i++) {
        buf_append_str(out, i > 0 ? ",{\"name\":" : "{\"name\":");
        buf_json_text(out, s->setup.faults[i].name);
        buf_printf(out, ",\"hits\":%" PRIu64 "}", s->setup.faults[i].hits);
    }
    buf_append_str(out, "],\"gpu_ms\":{");
    for (int c = 0; c < CATEGORY_COUNT; c++) {
        buf_printf(out, "%s\"%s\":%" PRId64, c > 0 ? "," : "", category_names[c], a->gpu_ms[c]);
    }
    buf_printf(out,
               "},\"ledger_rows\":%" PRIu64 ",\"inputs\":%" PRIu64 ",\"seed\":%" PRIu64
               ",\"hash\":\"%016" PRIx64 "\"}\n",
               a->ledger_rows, result->inputs, s->setup.seed, result->hash);
}

static void write_csv(struct buf *out, const struct report *r, const struct scenario *s,
                      const struct fleet_result *result)
{
    buf_append_str(out, "scenario,stage,gpu_hours,cost_micro_usd,ettr,ettr_closed_form,goodput,"
                        "failures,restarts,lost_steps,seed,hash\n");
    for (size_t i = 0; i <= r->stage_count; i++) {
        bool total = i == r->stage_count;
        buf_printf(out, "%s,%s,%.3f,%" PRId64, s->name, total ? "total" : r->stages[i].stage,
                   (double)(total ? r->gpu_ms : r->stages[i].gpu_ms) / HOUR_MS,
                   total ? r->cost_micro_usd : r->stages[i].cost_micro_usd);
        if (total) {
            buf_printf(out, ",%.6f,%.6f,%.6f,%" PRIu64 ",%" PRIu64 ",%" PRIu64, r->ettr,
                       scenario_closed_form(s), r->goodput, result->failures, r->restarts,
                       result->audit.lost_steps);
        } else {
            buf_append_str(out, ",,,,,,");
        }
        buf_printf(out, ",%" PRIu64 ",%016" PRIx64 "\n", s->setup.seed, result->hash);
    }
}

static void stage_line(struct buf *out, const char *name, int64_t gpu_ms, int64_t cost_micro_usd)
{
    struct buf hours = {0}, cost = {0};
    report_number(&hours, (double)gpu_ms / HOUR_MS, 1);
    report_number(&cost, (double)cost_micro_usd / 1e6, 2);
    buf_printf(out, "%-20s %15s %17s\n", name, buf_cstr(&hours), buf_cstr(&cost));
    buf_fini(&hours);
    buf_fini(&cost);
}

static void write_table(struct buf *out, const struct report *r, const struct scenario *s,
                        const struct fleet_result *result)
{
    const struct audit *a = &result->audit;
    buf_printf(out, "%s: %u nodes x %u %s, %.2f days, seed %" PRIu64 "\n\n", s->name,
               s->setup.nodes, s->setup.gpus, s->setup.model, (double)result->end_ms / DAY_MS,
               s->setup.seed);
    buf_printf(out, "%-20s %15s %17s\n", "STAGE", "GPU-HOURS", "COST USD");
    for (size_t i = 0; i < r->stage_count; i++) {
        stage_line(out, r->stages[i].stage, r->stages[i].gpu_ms, r->stages[i].cost_micro_usd);
    }
    stage_line(out, "total", r->gpu_ms, r->cost_micro_usd);
    buf_printf(out, "\n%-28s %16s %8s\n", "ACCELERATOR TIME", "HOURS", "SHARE");
    int64_t capacity_ms = 0;
    for (int c = 0; c < CATEGORY_COUNT; c++) {
        capacity_ms += a->gpu_ms[c];
    }
    for (int c = 0; c < CATEGORY_COUNT; c++) {
        if (a->gpu_ms[c] > 0) {
            struct buf hours = {0};
            report_number(&hours, (double)a->gpu_ms[c] / HOUR_MS, 1);
            buf_printf(out, "%-28s %16s %7.3f%%\n", category_names[c], buf_cstr(&hours),
                       100.0 * (double)a->gpu_ms[c] / (double)capacity_ms);
            buf_fini(&hours);
        }
    }
    buf_printf(out, "\njobs completed          %" PRIu64 " of %" PRIu64 "\n", r->completed,
               r->jobs);
    buf_printf(out, "faults that hit a job   %" PRIu64 "\n", result->failures);
    for (size_t i = 0; i < s->setup.fault_count; i++) {
        if (s->setup.faults[i].hits > 0) {
            buf_printf(out, "    %-24s %5" PRIu64 "\n", s->setup.faults[i].name,
                       s->setup.faults[i].hits);
        }
    }
    buf_printf(out, "restarts                %" PRIu64 "\n", r->restarts);
    buf_printf(out, "preemptions             %" PRIu64 "\n", a->preemptions);
    buf_printf(out, "steps lost              %" PRIu64 "\n", a->lost_steps);
    buf_printf(out, "effective training time %.4f (closed form %.4f)\n", r->ettr,
               scenario_closed_form(s));
    buf_printf(out, "goodput by the ledger   %.4f\n", r->goodput);
    buf_printf(out, "utilisation             %.4f\n", r->utilisation);
    buf_printf(out, "hash                    %016" PRIx64 "\n", result->hash);
}

void report_write(struct buf *out, enum report_format format, const struct report *r,
                  const struct scenario *s, const struct fleet_result *result)
{
    switch (format) {
    case REPORT_JSON:
        write_json(out, r, s, result);
        break;
    case REPORT_CSV:
        write_csv(out, r, s, result);
        break;
    case REPORT_TABLE:
    default:
        write_table(out, r, s, result);
    }
}
