/* The steps of a job, however many: page by page. */
#ifndef CTL_METRIC_PAGES_H
#define CTL_METRIC_PAGES_H

#include "ctl/ctl.h"

/* Calls take for each page from step `from` on. */
int metric_pages_read(struct ctl *ctl, uint64_t job, uint64_t from,
                      void (*take)(const Ds__MetricList *page, void *arg), void *arg,
                      struct err *err);

#endif
