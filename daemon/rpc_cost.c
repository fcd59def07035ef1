/* The bill and its audit. Both read much: on a thread of their own, over a connection of their own.
 */
#include <stdlib.h>

#include "daemon/rpc.h"
#include "daemon/views_db.h"
#include "daemon/work.h"
#include "lib/mem.h"

struct cost_work {
    struct work work;
    const char *state_dir; /* borrowed from the configuration */
    int64_t now_ms;
    Ds__CostReportRequest request;
    char *by; /* owned */
    Ds__Cost *cost;
};

static struct cost_work *create(struct call *call)
{
    struct cost_work *w = mem_alloc(sizeof *w);
    w->state_dir = call->dsd->config->state_dir;
    w->now_ms = dsd_now_ms(call->dsd);
    return w;
}

static void destroy(struct cost_work *w)
{
    rpc_free((ProtobufCMessage *)w->cost);
    free(w->by);
    free(w);
}

static void report_run(struct work *work)
{
    struct cost_work *w = (struct cost_work *)work;
    struct views *views = NULL;
    work->rc = views_open(&views, w->state_dir, NULL, &work->err);
    if (work->rc == 0) {
        work->rc = views_cost(views, &w->request, w->now_ms, &w->cost, &work->err);
    }
    views_close(views);
}

static void report_finish(struct work *work)
{
    struct cost_work *w = (struct cost_work *)work;
    if (work->rc != 0) {
        call_fail(work->call, work->rc, "%s", work->err.text);
    } else {
        call_reply(work->call, &w->cost->base);
    }
    destroy(w);
}

void rpc_cost_report(struct call *call, const ProtobufCMessage *request)
{
    struct cost_work *w = create(call);
    w->request = *(const Ds__CostReportRequest *)request;
    w->by = mem_strdup(w->request.by);
    w->request.by = w->by;
    work_start(&w->work, call, report_run, report_finish);
}
