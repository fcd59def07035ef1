#include "daemon/work.h"

#include <assert.h>

static void on_run(uv_work_t *request)
{
    struct work *w = request->data;
    w->run(w);
}

static void on_finish(uv_work_t *request, int status)
{
    (void)status; /* nothing is ever cancelled */
    struct work *w = request->data;
    w->call->dsd->works--;
    w->finish(w);
}

void work_start(struct work *w, struct call *call, void (*run)(struct work *w),
                void (*finish)(struct work *w))
{
    w->call = call;
    w->run = run;
    w->finish = finish;
    w->request.data = w;
    call->dsd->works++;
    call_work(call);
    int rc = uv_queue_work(&call->dsd->loop, &w->request, on_run, on_finish);
    assert(rc == 0); /* only fails without a function */
}
