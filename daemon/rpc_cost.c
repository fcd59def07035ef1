/* The bill and its audit. Both read much: on a thread of their own, over a connection of their own.
 */
#include <stdlib.h>

#include "daemon/ledger_verify.h"
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
    struct ledger_verdict verdict;
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
    ledger_verdict_fini(&w->verdict);
    rpc_free((ProtobufCMessage *)w->cost);
    free(w->by);
    free(w);
}

/* ------------------------------------------------------------------ COST_REPORT */

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

/* ------------------------------------------------------------------ COST_VERIFY */

static void verify_run(struct work *work)
{
    struct cost_work *w = (struct cost_work *)work;
    struct views *views = NULL;
    work->rc = views_open(&views, w->state_dir, NULL, &work->err);
    if (work->rc == 0) {
        work->rc = ledger_verify(views->db, w->now_ms, &w->verdict, &work->err);
    }
    views_close(views);
}

static void verify_finish(struct work *work)
{
    struct cost_work *w = (struct cost_work *)work;
    struct ledger_verdict *v = &w->verdict;
    if (work->rc != 0) {
        call_fail(work->call, work->rc, "%s", work->err.text);
        destroy(w);
        return;
    }
    Ds__Capacity capacity = DS__CAPACITY__INIT;
    capacity.allocated = (uint64_t)v->allocated_ms;
    capacity.down = (uint64_t)v->down_ms;
    capacity.planned_down = (uint64_t)v->planned_down_ms;
    capacity.idle = (uint64_t)v->idle_ms;
    capacity.reported = (uint64_t)v->reported_ms;
    Ds__CostVerify m = DS__COST_VERIFY__INIT;
    m.ok = v->ok;
    m.rows = v->rows;
    m.head = v->head;
    m.capacity = &capacity;
    m.problem = v->problems;
    m.n_problem = v->problem_count;
    call_reply(work->call, &m.base);
    destroy(w);
}

void rpc_cost_verify(struct call *call, const ProtobufCMessage *request)
{
    (void)request;
    work_start(&create(call)->work, call, verify_run, verify_finish);
}
