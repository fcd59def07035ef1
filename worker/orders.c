/* What the coordinator asks of this worker, one function each. Orders about attempts go to the
 * agent, which answers them; work that may block is done on the thread pool and answered when it is
 * done. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/log.h"
#include "lib/mem.h"
#include "worker/attempt.h"
#include "worker/attempt_dir.h"
#include "worker/attempt_env.h"
#include "worker/ckpt_order.h"
#include "worker/log_file.h"
#include "worker/log_read.h"
#include "worker/session.h"

/* ---- attempts */

/* Takes the message over when the attempt is new. */
static bool order_start(struct worker *w, uint64_t token, Ds__AttemptStart *order)
{
    struct agent_attempt *a = agent_order_start(w->agent, token, order->job, order->epoch,
                                                order->rank_first, attempt_rank_count(order));
    if (a == NULL) {
        return false;
    }
    attempt_attach(w, a, order);
    return true;
}

/* ---- work off the loop */

struct job {
    uv_work_t work;
    struct worker *worker;
    uint64_t token;
    uint16_t method;
    ProtobufCMessage *request; /* owned */
    int code;
    struct err err;
    /* LOG_READ */
    char *log_path; /* owned */
    bool missing_is_fine;
    uint64_t offset;
    struct log_chunk chunk;
    bool final;
};

static void job_free(struct job *job)
{
    rpc_free(job->request);
    buf_fini(&job->chunk.data);
    free(job->log_path);
    free(job);
}

static void answer_job(struct job *job)
{
    struct link *link = job->worker->link;
    if (job->code != 0 || job->method != RPC_LOG_READ) {
        link_answer(link, job->token, job->code, job->err.text);
        return;
    }
    Ds__LogChunk reply = DS__LOG_CHUNK__INIT;
    reply.data.data = job->chunk.data.data;
    reply.data.len = job->chunk.data.len;
    reply.offset = job->chunk.offset;
    reply.next_offset = job->chunk.next_offset;
    reply.end = job->chunk.end;
    reply.final = job->chunk.end && job->final;
    link_reply(link, job->token, &reply.base);
}

static void on_job_done(uv_work_t *work, int status)
{
    (void)status;
    struct job *job = work->data;
    worker_dequeued(job->worker);
    if (job->worker->stage != WORKER_CLOSING) {
        answer_job(job);
    }
    job_free(job);
}

static struct job *job_create(struct worker *w, uint64_t token, uint16_t method,
                              ProtobufCMessage *request)
{
    struct job *job = mem_alloc(sizeof *job);
    job->work.data = job;
    job->worker = w;
    job->token = token;
    job->method = method;
    job->request = request;
    return job;
}

/* ---- checkpoints */

static void publish(uv_work_t *work)
{
    struct job *job = work->data;
    const Ds__CkptPublish *order = (const Ds__CkptPublish *)job->request;
    job->code = ckpt_publish(order->path, order->manifest, &job->err);
}

static void unpublish(uv_work_t *work)
{
    struct job *job = work->data;
    job->code = ckpt_remove(((const Ds__CkptRemove *)job->request)->path, &job->err);
}

/* ---- logs */

static void read_log(uv_work_t *work)
{
    struct job *job = work->data;
    const Ds__LogRead *r = (const Ds__LogRead *)job->request;
    struct stat st;
    char *folder = mem_strdup(job->log_path);
    *strrchr(folder, '/') = 0;
    bool there = stat(folder, &st) == 0;
    free(folder);
    if (!there && job->missing_is_fine) {
        job->chunk.end = true;
        return;
    }
    if (!there) {
        job->code =
            err_set(&job->err, ERR_NOT_FOUND,
                    "the output of rank %" PRIu32 " of job %" PRIu64
                    " is not on this node any more (old logs are removed, see logs.total_mib)",
                    r->rank, r->job);
        return;
    }
    uint64_t offset = r->offset;
    size_t limit =
        r->has_limit_bytes && r->limit_bytes > 0 ? r->limit_bytes : LOG_READ_BYTES_DEFAULT;
    if (r->has_tail_lines) {
        job->code = log_tail_offset(job->log_path, r->tail_lines, &offset, &job->err);
    }
    if (job->code == 0) {
        job->code =
            log_read(job->log_path, offset, limit < LOG_READ_BYTES_MAX ? limit : LOG_READ_BYTES_MAX,
                     &job->chunk, &job->err);
    }
}

static uint64_t newest_epoch(struct worker *w, uint64_t job)
{
    uint64_t best = log_newest_epoch(w->config->state_dir, job);
    for (size_t i = 0; i < agent_count(w->agent); i++) {
        const struct agent_attempt *a = agent_at(w->agent, i);
        best = a->job == job && a->epoch > best ? a->epoch : best;
    }
    return best;
}

static void order_log_read(struct worker *w, uint64_t token, ProtobufCMessage *request)
{
    const Ds__LogRead *r = (const Ds__LogRead *)request;
    struct job *job = job_create(w, token, RPC_LOG_READ, request);
    uint64_t epoch = r->has_epoch && r->epoch > 0 ? r->epoch : newest_epoch(w, r->job);
    const struct agent_attempt *a = agent_find(w->agent, r->job, epoch);
    char name[LOG_NAME_BYTES];
    log_file_name(name, r->rank, r->stream == 2);
    char *folder = attempt_log_path(w->config->state_dir, r->job, epoch);
    job->log_path = mem_printf("%s/%s", folder, name);
    free(folder);
    /* What the rank wrote is in the file before its exit is known here, so once that is so the end
     * read now is the end for good. */
    job->final = a == NULL || a->stage == AGENT_ENDED ||
                 (agent_has_rank(a, r->rank) && a->exits[r->rank - a->rank_first].known);
    job->missing_is_fine = a != NULL;
    worker_queue(w, &job->work, read_log, on_job_done);
}

/* ---- dispatch */

static uint64_t term_of(const struct frame *f, const ProtobufCMessage *m)
{
    switch (f->method) {
    case RPC_ATTEMPT_START:
        return ((const Ds__AttemptStart *)m)->term;
    case RPC_ATTEMPT_STOP:
        return ((const Ds__AttemptStop *)m)->term;
    case RPC_ATTEMPT_FORGET:
        return ((const Ds__AttemptForget *)m)->term;
    case RPC_CKPT_PUBLISH:
        return ((const Ds__CkptPublish *)m)->term;
    case RPC_CKPT_REMOVE:
        return ((const Ds__CkptRemove *)m)->term;
    default:
        return UINT64_MAX;
    }
}

static int carry_out(struct worker *w, uint64_t token, const struct frame *f,
                     ProtobufCMessage **message, struct err *err)
{
    uint64_t term = term_of(f, *message);
    if (term != UINT64_MAX) {
        TRY(session_see_term(w, term, err));
    }
    ProtobufCMessage *m = *message;
    struct job *job;
    switch (f->method) {
    case RPC_ATTEMPT_START:
        if (order_start(w, token, (Ds__AttemptStart *)m)) {
            *message = NULL;
        }
        return 0;
    case RPC_ATTEMPT_STOP: {
        const Ds__AttemptStop *s = (const Ds__AttemptStop *)m;
        agent_order_stop(w->agent, token, s->job, s->epoch, s->grace_ms, s->reason);
        return 0;
    }
    case RPC_ATTEMPT_FORGET: {
        const Ds__AttemptForget *g = (const Ds__AttemptForget *)m;
        agent_order_forget(w->agent, token, g->job, g->epoch);
        return 0;
    }
    case RPC_CKPT_PUBLISH:
    case RPC_CKPT_REMOVE:
        job = job_create(w, token, f->method, m);
        *message = NULL;
        worker_queue(w, &job->work, f->method == RPC_CKPT_PUBLISH ? publish : unpublish,
                     on_job_done);
        return 0;
    case RPC_LOG_READ:
        order_log_read(w, token, m);
        *message = NULL;
        return 0;
    default:
        return err_set(err, ERR_PROTOCOL, "method %u is not for a worker", f->method);
    }
}

void worker_order(struct worker *w, uint64_t token, const struct frame *f)
{
    ProtobufCMessage *message = NULL;
    struct err err = {0};
    int rc = rpc_unpack(f, &message, &err);
    if (rc == 0) {
        rc = carry_out(w, token, f, &message, &err);
    }
    if (rc != 0) {
        log_warn("order refused: %s", err.text);
        link_answer(w->link, token, rc, err.text);
    }
    rpc_free(message);
}
