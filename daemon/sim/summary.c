#include "daemon/sim/summary.h"

#include <inttypes.h>
#include <stdio.h>

#include "lib/buf_json.h"

#define HOUR_MS 3600000.0

static void short_time(double ms, char *text, size_t bytes)
{
    if (ms < 60000) {
        snprintf(text, bytes, "%.1fs", ms / 1000);
    } else if (ms < HOUR_MS) {
        snprintf(text, bytes, "%.1fm", ms / 60000);
    } else if (ms < 48 * HOUR_MS) {
        snprintf(text, bytes, "%.2fh", ms / HOUR_MS);
    } else {
        snprintf(text, bytes, "%.2fd", ms / HOUR_MS / 24);
    }
}

static void against(struct buf *out, double value, double first)
{
    if (first > 0) {
        buf_printf(out, " %+7.0f%%", 100 * (value / first - 1));
    } else {
        buf_printf(out, " %8s", value > 0 ? "more" : "same");
    }
}

static void write_table(struct buf *out, const struct summary_head *head,
                        const struct summary_row *rows, size_t count)
{
    buf_printf(out, "%s: %zu jobs", head->trace, head->jobs);
    if (head->skipped > 0) {
        buf_printf(out, ", %zu that never ran or asked for nothing are left out", head->skipped);
    }
    if (head->rounded > 0) {
        buf_printf(out, ", %zu ask for a part of an accelerator and get a whole one",
                   head->rounded);
    }
    if (head->refused > 0) {
        buf_printf(out, ", %zu can never fit", head->refused);
    }
    buf_printf(out, "\n%s%s\n", head->cluster, head->cluster[0] != 0 ? "\n" : "");
    buf_printf(out, "%-10s %-16s %6s %9s %9s %9s %9s %9s %9s %9s %7s %9s%s\n", "SCHEDULER",
               "VARIANT", "NODES", "WAIT MEAN", "MEDIAN", "P95", "MAX", "SLOWDOWN", "GANG MEAN",
               "GANG MAX", "USED", "MAKESPAN", head->compares ? "     WAIT SLOWDOWN" : "");
    for (size_t i = 0; i < count; i++) {
        const struct summary *s = rows[i].summary;
        double times[] = {s->wait_mean_ms,       s->wait_median_ms,    s->wait_p95_ms,
                          s->wait_max_ms,        s->gang_wait_mean_ms, s->gang_wait_max_ms,
                          (double)s->makespan_ms};
        char text[7][24];
        for (int t = 0; t < 7; t++) {
            short_time(times[t], text[t], sizeof text[t]);
        }
        buf_printf(out, "%-10s %-16s %6u %9s %9s %9s %9s %9.2f %9s %9s %6.2f%% %9s", s->name,
                   rows[i].variant != NULL ? rows[i].variant : "-", rows[i].nodes, text[0], text[1],
                   text[2], text[3], s->slowdown_mean, text[4], text[5], 100 * s->utilisation,
                   text[6]);
        if (head->compares && i > 0) {
            against(out, s->wait_mean_ms, rows[0].summary->wait_mean_ms);
            against(out, s->slowdown_mean, rows[0].summary->slowdown_mean);
        }
        buf_append_str(out, "\n");
    }
    if (head->compares) {
        buf_append_str(out, "\nThe last two columns compare with the first row.");
    }
    buf_printf(out,
               "\nSlowdown is bounded: (wait + run) / max(run, 10 s). Gangs: the %zu jobs of a "
               "quarter of the nodes and more.\n",
               count > 0 ? rows[0].summary->gangs : 0);
    buf_printf(out, "hash %016" PRIx64 "\n", head->result->hash);
}

static void write_csv(struct buf *out, const struct summary_head *head,
                      const struct summary_row *rows, size_t count)
{
    (void)head;
    buf_append_str(out, "scheduler,variant,nodes,gpus_per_node,started,never,wait_mean_ms,"
                        "wait_median_ms,wait_p95_ms,wait_max_ms,bounded_slowdown_mean,"
                        "bounded_slowdown_p95,gangs,gang_wait_mean_ms,gang_wait_max_ms,utilisation,"
                        "makespan_ms\n");
    for (size_t i = 0; i < count; i++) {
        const struct summary *s = rows[i].summary;
        buf_printf(out,
                   "%s,%s,%u,%u,%zu,%zu,%.0f,%.0f,%.0f,%.0f,%.4f,%.4f,%zu,%.0f,%.0f,%.6f,%" PRId64
                   "\n",
                   s->name, rows[i].variant != NULL ? rows[i].variant : "", rows[i].nodes,
                   rows[i].gpus, s->started, s->never, s->wait_mean_ms, s->wait_median_ms,
                   s->wait_p95_ms, s->wait_max_ms, s->slowdown_mean, s->slowdown_p95, s->gangs,
                   s->gang_wait_mean_ms, s->gang_wait_max_ms, s->utilisation, s->makespan_ms);
    }
}

static void json_row(struct buf *out, const struct summary_row *row)
{
    const struct summary *s = row->summary;
    buf_append_str(out, "{\"scheduler\":");
    buf_json_text(out, s->name);
    buf_append_str(out, ",\"variant\":");
    buf_json_text(out, row->variant);
    buf_printf(out,
               ",\"nodes\":%u,\"gpus_per_node\":%u,\"started\":%zu,\"never\":%zu,"
               "\"wait_mean_ms\":%.0f,\"wait_median_ms\":%.0f,\"wait_p95_ms\":%.0f,"
               "\"wait_max_ms\":%.0f,\"bounded_slowdown_mean\":%.6f,"
               "\"bounded_slowdown_p95\":%.6f,\"gangs\":%zu,\"gang_wait_mean_ms\":%.0f,"
               "\"gang_wait_max_ms\":%.0f,\"utilisation\":%.6f,\"makespan_ms\":%" PRId64 "}",
               row->nodes, row->gpus, s->started, s->never, s->wait_mean_ms, s->wait_median_ms,
               s->wait_p95_ms, s->wait_max_ms, s->slowdown_mean, s->slowdown_p95, s->gangs,
               s->gang_wait_mean_ms, s->gang_wait_max_ms, s->utilisation, s->makespan_ms);
}

static void write_json(struct buf *out, const struct summary_head *head,
                       const struct summary_row *rows, size_t count)
{
    const struct audit *a = &head->result->audit;
    int64_t gpu_ms = 0;
    for (size_t i = 0; i < a->job_count; i++) {
        for (int c = 0; c < CATEGORY_COUNT; c++) {
            gpu_ms += a->jobs[i].gpu_ms[c];
        }
    }
    double hours = (double)gpu_ms / HOUR_MS;
    double goodput = gpu_ms > 0 ? (double)a->gpu_ms[CATEGORY_PRODUCTIVE] / (double)gpu_ms : 0;
    buf_append_str(out, "{\"schema\":\"ds/sim/v1\",\"trace\":");
    buf_json_text(out, head->trace);
    buf_printf(out, ",\"jobs\":%zu,\"skipped\":%zu,\"rounded\":%zu,\"refused\":%zu,\"items\":[",
               head->jobs, head->skipped, head->rounded, head->refused);
    for (size_t i = 0; i < count; i++) {
        buf_append_str(out, i > 0 ? "," : "");
        json_row(out, &rows[i]);
    }
    buf_append_str(out, "],\"stages\":[{\"stage\":\"other\",\"gpu_hours\":");
    buf_json_double(out, hours);
    buf_printf(out, ",\"cost_micro_usd\":%" PRId64 "}],\"gpu_hours\":", a->cost_micro_usd);
    buf_json_double(out, hours);
    buf_printf(out, ",\"cost_micro_usd\":%" PRId64 ",\"ettr\":", a->cost_micro_usd);
    buf_json_double(out, goodput);
    buf_append_str(out, ",\"goodput\":");
    buf_json_double(out, goodput);
    buf_printf(out,
               ",\"failures\":%" PRIu64 ",\"restarts\":%" PRIu64 ",\"lost_steps\":%" PRIu64
               ",\"seed\":%" PRIu64 ",\"hash\":\"%016" PRIx64 "\"}\n",
               head->result->failures,
               a->attempts > head->jobs ? a->attempts - head->jobs + head->refused : 0,
               a->lost_steps, head->seed, head->result->hash);
}

void summary_write(struct buf *out, enum report_format format, const struct summary_head *head,
                   const struct summary_row *rows, size_t count)
{
    switch (format) {
    case REPORT_JSON:
        write_json(out, head, rows, count);
        break;
    case REPORT_CSV:
        write_csv(out, head, rows, count);
        break;
    case REPORT_TABLE:
    default:
        write_table(out, head, rows, count);
    }
}
