#include "worker/session.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/file.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/version.h"
#include "worker/rank_server.h"
#include "worker/report.h"

/* ---- the term */

static char *term_path(const struct worker *w)
{
    return mem_printf("%s/term", w->config->state_dir);
}

int session_read_term(struct worker *w, struct err *err)
{
    char *path = term_path(w);
    struct buf text = {0};
    int rc = file_read(path, 64, &text, err);
    if (rc == ERR_NOT_FOUND) {
        rc = 0;
    } else if (rc == 0) {
        char *end;
        w->term = strtoull(buf_cstr(&text), &end, 10);
        if (end == (char *)text.data || *end != '\n') {
            rc = err_set(err, ERR_CORRUPT,
                         "%s is damaged (write the newest term, see `dsctl cluster status`, and a "
                         "newline into it)",
                         path);
        }
    }
    buf_fini(&text);
    free(path);
    return rc;
}

int session_see_term(struct worker *w, uint64_t term, struct err *err)
{
    if (term == w->term) {
        return 0;
    }
    if (term < w->term) {
        return err_set(err, ERR_STALE,
                       "coordinator of term %" PRIu64 ", but %" PRIu64
                       " was here (an old one, or restored from an old backup?)",
                       term, w->term);
    }
    char *path = term_path(w);
    char text[32];
    int len = snprintf(text, sizeof text, "%" PRIu64 "\n", term);
    int rc = file_write_durable(path, text, (size_t)len, 0600, err);
    free(path);
    if (rc == 0) {
        w->term = term;
    }
    return rc;
}

/* ---- telling the coordinator */

/* Which report an acknowledgement is for. The attempt may be forgotten by then. */
struct ack {
    struct worker *worker;
    uint64_t job, epoch, version;
};

static void on_acked(void *ctx, int code, const char *text, const struct frame *f)
{
    (void)f;
    struct ack *ack = ctx;
    struct agent_attempt *a = agent_find(ack->worker->agent, ack->job, ack->epoch);
    if (code == ERR_AGAIN) {
        link_drop(ack->worker->link, text);
    } else if (code != ERR_UNREACHABLE) {
        if (code != 0) {
            log_warn("job %" PRIu64 " epoch %" PRIu64 ": the coordinator refuses the report: %s",
                     ack->job, ack->epoch, text);
        }
        if (a != NULL) {
            agent_acked(ack->worker->agent, a, ack->version);
        }
    }
    free(ack);
}

void session_report(struct worker *w, const struct agent_attempt *a, uint64_t version)
{
    struct report r;
    struct ack *ack = mem_alloc(sizeof *ack);
    *ack = (struct ack){w, a->job, a->epoch, version};
    report_init(&r, a);
    link_request(w->link, RPC_ATTEMPT_REPORT, &r.message.base, on_acked, ack);
    report_fini(&r);
}

/* ---- registering, and the rest of the link */

struct registration {
    struct report *reports;
    Ds__AttemptReport **report_list;
    Ds__WorkerGpu *gpus;
    Ds__WorkerGpu **gpu_list;
    size_t reports_count;
};

static void registration_fini(struct registration *r)
{
    for (size_t i = 0; i < r->reports_count; i++) {
        report_fini(&r->reports[i]);
    }
    free(r->reports);
    free(r->report_list);
    free(r->gpus);
    free(r->gpu_list);
    *r = (struct registration){0};
}

static void fill_gpus(const struct worker *w, struct registration *r, Ds__WorkerRegister *m)
{
    size_t count = w->inventory.count;
    r->gpus = mem_alloc_array(count, sizeof *r->gpus);
    r->gpu_list = mem_alloc_array(count, sizeof *r->gpu_list);
    for (size_t i = 0; i < count; i++) {
        struct inventory_gpu *g = &w->inventory.gpus[i];
        r->gpus[i] = (Ds__WorkerGpu)DS__WORKER_GPU__INIT;
        r->gpus[i].index = g->index;
        r->gpus[i].uuid = g->uuid;
        r->gpus[i].model = g->model;
        r->gpus[i].has_memory_bytes = g->memory_bytes > 0;
        r->gpus[i].memory_bytes = g->memory_bytes;
        r->gpus[i].health = g->health;
        r->gpu_list[i] = &r->gpus[i];
    }
    m->gpus = r->gpu_list;
    m->n_gpus = count;
}

static void fill_attempts(const struct worker *w, struct registration *r, Ds__WorkerRegister *m)
{
    size_t count = agent_count(w->agent);
    r->reports = mem_alloc_array(count, sizeof *r->reports);
    r->report_list = mem_alloc_array(count, sizeof *r->report_list);
    for (size_t i = 0; i < count; i++) {
        const struct agent_attempt *a = agent_at(w->agent, i);
        if (agent_phase(a) > 0) {
            report_init(&r->reports[r->reports_count], a);
            r->report_list[r->reports_count] = &r->reports[r->reports_count].message;
            r->reports_count++;
        }
    }
    m->attempts = r->report_list;
    m->n_attempts = r->reports_count;
}

/* Last words are a comfort; a registration that does not fit a frame would never be accepted. */
static void fit_into_frame(struct registration *r, const Ds__WorkerRegister *m)
{
    if (ds__worker_register__get_packed_size(m) <= FRAME_PAYLOAD_MAX) {
        return;
    }
    for (size_t i = 0; i < r->reports_count; i++) {
        for (size_t k = 0; k < r->reports[i].message.n_exits; k++) {
            r->reports[i].exits[k].last_words = NULL;
        }
    }
}

static void on_greeted(void *owner)
{
    struct worker *w = owner;
    struct registration r = {0};
    char version[] = DS_VERSION;
    Ds__WorkerRegister m = DS__WORKER_REGISTER__INIT;
    agent_registering(w->agent);
    m.name = w->config->name;
    m.boot_id = w->boot_id;
    m.version = version;
    m.term_seen = w->term;
    m.addr = w->config->addr;
    fill_gpus(w, &r, &m);
    fill_attempts(w, &r, &m);
    fit_into_frame(&r, &m);
    link_register(w->link, &m);
    registration_fini(&r);
}

static int on_registered(void *owner, const Ds__WorkerRegisterReply *reply, struct err *err)
{
    struct worker *w = owner;
    TRY(session_see_term(w, reply->term, err));
    log_info("registered as %s with the coordinator at %s, term %" PRIu64, w->config->name,
             w->config->server, reply->term);
    /* What ranks said goes first: the coordinator may take a report as the end of an attempt. */
    rank_server_link_up(w->ranks);
    agent_registered(w->agent);
    return 0;
}

static void on_link_lost(void *owner)
{
    struct worker *w = owner;
    agent_link_lost(w->agent);
}

static void on_order(void *owner, uint64_t token, const struct frame *f)
{
    struct worker *w = owner;
    if (w->stage == WORKER_SERVING || f->method != RPC_ATTEMPT_START) {
        worker_order(w, token, f);
    } else {
        link_answer(w->link, token, ERR_AGAIN, "this worker is being stopped");
    }
}

const struct link_ops session_link_ops = {on_greeted, on_registered, on_link_lost, on_order};
