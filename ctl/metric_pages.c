#include "ctl/metric_pages.h"

#define PAGE_STEPS 10000u

int metric_pages_read(struct ctl *ctl, uint64_t job, uint64_t from,
                      void (*take)(const Ds__MetricList *page, void *arg), void *arg,
                      struct err *err)
{
    for (;;) {
        Ds__MetricRead request = DS__METRIC_READ__INIT;
        Ds__MetricList *page = NULL;
        request.job = job;
        request.has_from_step = request.has_limit = 1;
        request.from_step = from;
        request.limit = PAGE_STEPS;
        TRY(session_call(&ctl->session, RPC_JOB_METRICS, &request, &page, err));
        uint64_t next = page->n_items > 0 ? page->items[page->n_items - 1]->step + 1 : from;
        take(page, arg);
        rpc_free(&page->base);
        if (next <= from) {
            return 0;
        }
        from = next;
    }
}
