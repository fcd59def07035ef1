/* What a run measured, step by step, as a report needs it: one row a step, of the way that led to
 * where the run stands. Steps that were done again after a restart or a rollback are in the newest
 * attempt's words; what lay beyond a rollback is no part of the run any more. Both are counted. */
#ifndef REPORT_METRICS_H
#define REPORT_METRICS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

enum metric {
    METRIC_LOSS,
    METRIC_MTP_LOSS,
    METRIC_VALID_LOSS,
    METRIC_GRAD_NORM,
    METRIC_MAXVIO,
    METRIC_VALID_MAXVIO,
    METRIC_LR,
    METRIC_TOKENS_PER_S,
    METRIC_STEP_MS,
    METRICS
};
extern const char *const metric_keys[METRICS]; /* of a line of metrics.jsonl */

#define METRICS_LAYERS_MAX 512

struct metrics_row {
    uint64_t step, epoch, tokens;
    double value[METRICS]; /* NAN: not measured; INFINITY: measured, and not finite */
    uint64_t order;        /* of arrival */
};
struct metrics_epoch { /* one attempt */
    uint64_t epoch, first_step, last_step;
    uint64_t lost_steps;
    double kept_ms, lost_ms;
};
struct metrics_layer {
    uint64_t layer;
    double maxvio;
};
struct metrics {
    struct metrics_row *rows; /* owned; after metrics_finish by step, each once */
    size_t count, capacity;
    uint64_t lost_steps;          /* rows that are no part of the run any more */
    double lost_ms;               /* what they took */
    struct metrics_epoch *epochs; /* owned; after metrics_finish, the newest first */
    size_t epoch_count;
    uint64_t broken_lines;
    bool torn; /* the last line was cut off: the run was, too, or it is being written */
    struct metrics_layer *layers; /* owned; of the newest row that has them */
    size_t layer_count;
    uint64_t layers_step; /* that row's */
};

void metrics_fini(struct metrics *m); /* a zeroed one is fine */
/* One step, with the keys of `job metrics -o json`. False, and nothing taken, when it is none. */
bool metrics_take(struct metrics *m, const json_t *object);
/* One line of metrics.jsonl, without the newline. One that is no step is counted. */
void metrics_take_line(struct metrics *m, const char *line, size_t len);
/* A whole metrics.jsonl; a missing one has no steps. ERR_IO, ERR_DENIED. */
int metrics_read(struct metrics *m, const char *path, struct err *err);
/* After the last one: orders, and drops what was given up. */
void metrics_finish(struct metrics *m);
/* NULL: it made no step. */
const struct metrics_epoch *metrics_epoch(const struct metrics *m, uint64_t epoch);

#endif
