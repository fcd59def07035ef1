/* The report of a run: what it was to do, how it went, what it cost. Pure: facts and measures in,
 * Markdown or HTML out; the same for a run that goes on, ended, or failed.
 *
 * The facts are one JSON object, `ds/report/v1`: what `job show -o json` says of a job (of a run
 * without a coordinator: as much of it as its folder knows), and
 *     origin   "coordinator" or "folder"
 *     made_at  time of the report
 *     layout   of the newest checkpoint: where the run stood, its model, its data (docs/formats.md)
 *     model    config.json, where there is no checkpoint yet
 *     guard    the decisions of the guard, as guard.jsonl has them
 *     time     [{"category", "gpu_ms", "cost_micro_usd"}]: what the time went into
 * Anything may be missing; what is not known is not shown, and not made up. */
#ifndef REPORT_RUN_REPORT_H
#define REPORT_RUN_REPORT_H

#include <jansson.h>
#include <stdbool.h>

#include "lib/err.h"
#include "report/doc.h"
#include "report/metrics.h"

/* Fills an initialised doc. */
void run_report_write(struct doc *d, const json_t *facts, const struct metrics *metrics);
/* The facts with `curves`: of each measure first, last, lowest, highest, mean and median. New
 * reference. */
json_t *run_report_json(const json_t *facts, const struct metrics *metrics);

/* Into that file: whole or not there. Markdown's pictures are in a folder beside it: of report.md,
 * report-plots/. */
int run_report_save(const char *path, enum doc_format format, const json_t *facts,
                    const struct metrics *metrics, struct err *err);
/* folder/report.md and folder/report.html. */
int run_report_save_both(const char *folder, const json_t *facts, const struct metrics *metrics,
                         struct err *err);

#endif
