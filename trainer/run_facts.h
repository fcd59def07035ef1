/* What the folder of a run that a person started knows of it, as the facts of a report
 * (report/run_report.h). Reads only; the run may go on meanwhile. */
#ifndef TRAINER_RUN_FACTS_H
#define TRAINER_RUN_FACTS_H

#include <jansson.h>

#include "lib/err.h"
#include "report/metrics.h"

/* price: dollars for an hour of a rank; NAN: not known. over: the caller holds the folder's lock
 * and is done. ERR_NOT_FOUND when it is no folder of a run. */
int run_facts_read(const char *run_dir, double price, bool over, json_t **facts,
                   struct metrics *metrics, struct err *err);
/* Puts what a coordinator said of the job (`job show -o json`, `job report -o json`) over them. Its
 * `metrics`, when it has some and the folder none, are taken, too. */
int run_facts_add(json_t *facts, struct metrics *metrics, const char *path, struct err *err);

#endif
