/* Inside of the run report: its sections, in their order. */
#ifndef REPORT_PARTS_H
#define REPORT_PARTS_H

#include "report/curve.h"
#include "report/doc.h"
#include "report/run_report.h"

#define PARTS_ROWS 50 /* of a table that grows with the run; the newest */

struct parts {
    struct doc *doc;
    const json_t *facts;
    const struct metrics *metrics;
    struct curve curves[METRICS];
};

void parts_curves(struct parts *p);   /* loss, gradient norm, balance, rate, speed */
void parts_attempts(struct parts *p); /* restarts, what the guard decided */
void parts_checkpoints(struct parts *p);
void parts_data(struct parts *p);  /* what was shown, of which source */
void parts_cost(struct parts *p);  /* what the time went into */
void parts_setup(struct parts *p); /* model and job file */
void parts_events(struct parts *p);

/* Is the time of that run counted in accelerators of a cluster, or in ranks of one machine? */
bool parts_has_gpus(const struct parts *p);
/* Cells. A time, or "-". */
void parts_time_cell(struct parts *p, const json_t *object, const char *key);
void parts_duration_cell(struct parts *p, const json_t *object, const char *key);
/* A number that is there, or "-". */
void parts_count_cell(struct parts *p, const json_t *object, const char *key);
void parts_text_cell(struct parts *p, const char *text);
/* For the newest PARTS_ROWS of a list: the first index; says so when that leaves some out. */
size_t parts_newest(struct parts *p, const json_t *list, const char *what);

#endif
