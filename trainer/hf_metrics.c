#include "trainer/hf_metrics.h"

#include <stdio.h>
#include <stdlib.h>

bool hf_metrics_is_shown(uint64_t step, uint64_t last)
{
    if (step == 0 || step > last) {
        return false;
    }
    uint64_t digit = step;
    while (digit % 10 == 0) {
        digit /= 10;
    }
    return step == last || digit == 1 || digit == 2 || digit == 5;
}

static uint64_t step_of(const json_t *metric)
{
    json_int_t step = json_integer_value(json_object_get(metric, "step"));
    return step > 0 ? (uint64_t)step : 0;
}

/* Keeps the array ordered; what is there of that step is replaced. */
static void take(json_t *metrics, json_t *metric, uint64_t last)
{
    uint64_t step = step_of(metric);
    if (!hf_metrics_is_shown(step, last)) {
        return;
    }
    size_t i = json_array_size(metrics);
    while (i > 0 && step_of(json_array_get(metrics, i - 1)) > step) {
        i--;
    }
    if (i > 0 && step_of(json_array_get(metrics, i - 1)) == step) {
        json_array_set(metrics, i - 1, metric);
    } else {
        json_array_insert(metrics, i, metric);
    }
}

int hf_metrics_read(json_t **metrics, const char *path, uint64_t last, struct err *err)
{
    FILE *file = fopen(path, "re");
    char *line = NULL;
    size_t room = 0;
    *metrics = NULL;
    if (file == NULL) {
        return err_set_errno(err, "cannot open %s", path);
    }
    *metrics = json_array();
    for (ssize_t len; (len = getline(&line, &room, file)) >= 0;) {
        json_t *metric = json_loadb(line, (size_t)len, 0, NULL);
        take(*metrics, metric, last);
        json_decref(metric);
    }
    int rc = ferror(file) ? err_set_errno(err, "cannot read %s", path) : 0;
    free(line);
    fclose(file);
    return rc;
}

json_t *hf_metrics_pick(const json_t *list, uint64_t last)
{
    json_t *metrics = json_array();
    for (size_t i = 0; i < json_array_size(list); i++) {
        take(metrics, json_array_get(list, i), last);
    }
    return metrics;
}
