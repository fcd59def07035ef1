/* A few steps out of a run's metrics, for its model card. */
#ifndef TRAINER_HF_METRICS_H
#define TRAINER_HF_METRICS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"

/* 1, 2, 5, 10, 20, 50 ... up to `last`, and that. */
bool hf_metrics_is_shown(uint64_t step, uint64_t last);
/* The shown steps of a metrics.jsonl, an array ordered by step; a step that was done twice counts
 * as the last time. Lines that are no JSON (a run that is killed leaves half a line) are skipped.
 * ERR_NOT_FOUND. */
int hf_metrics_read(json_t **metrics, const char *path, uint64_t last, struct err *err);
/* The same from a list of such objects, such as `dsctl job metrics` gives. */
json_t *hf_metrics_pick(const json_t *list, uint64_t last);

#endif
