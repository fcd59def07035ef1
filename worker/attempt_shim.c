#include "worker/attempt.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"
#include "lib/file.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "worker/attempt_dir.h"
#include "worker/cgroup.h"
#include "worker/proctree.h"
#include "worker/rank_server.h"
#include "worker/shim.h"

#define CLEAN_TRIES    200
#define CLEAN_LOOKS    3
#define CLEAN_PAUSE_MS 10
#define SHIM_LOG_MAX   65536

/* ---- what it says */

void attempt_feed(struct attempt *t, const Ds__ShimStatus *status)
{
    struct worker *w = t->worker;
    const Ds__AttemptReport *r = status->report;
    struct agent_shim_word word = {
        .started = r->phase >= 2,
        .ended = r->phase >= 3,
        .started_at_ms = r->started_at,
        .ended_at_ms = r->ended_at,
        .error = r->error,
        .stuck = r->stuck,
    };
    for (size_t i = 0; i < r->n_exits; i++) {
        const Ds__RankExit *e = r->exits[i];
        if (agent_shim_exit(t->a, e->rank, e->code, e->signal, e->at, e->last_words)) {
            rank_server_exited(w->ranks, t->a, e->rank);
        }
    }
    agent_shim(w->agent, t->a, &word);
}

static void on_frame(struct conn *conn, const struct frame *f)
{
    struct attempt *t = conn->owner;
    ProtobufCMessage *message = NULL;
    struct err err;
    if (f->method != RPC_SHIM_STATUS || f->kind == FRAME_ERROR) {
        return; /* an answer to STOP */
    }
    if (rpc_unpack(f, &message, &err) != 0) {
        log_error("job %" PRIu64 " epoch %" PRIu64 ": its shim speaks nonsense: %s", t->a->job,
                  t->a->epoch, err.text);
        return;
    }
    const Ds__ShimStatus *status = (const Ds__ShimStatus *)message;
    if (status->job == t->a->job && status->epoch == t->a->epoch &&
        strcmp(status->boot_id, t->worker->boot_id) == 0) {
        attempt_feed(t, status);
    }
    rpc_free(message);
}

static void on_lost(struct conn *conn, const char *why)
{
    (void)why;
    struct attempt *t = conn->owner;
    conn_destroy(t->shim);
    t->shim = NULL;
    attempt_shim_gone(t);
}

void attempt_shim_open(struct attempt *t, int fd)
{
    struct err err;
    t->shim = conn_create(&t->worker->loop, false, FRAME_PAYLOAD_MAX, on_frame, on_lost, t);
    uv_pipe_open(&t->shim->uv.pipe, fd);
    if (conn_start(t->shim, &err) != 0) {
        log_error("job %" PRIu64 ": %s", t->a->job, err.text);
    }
    if (t->a->stop_wanted) {
        attempt_shim_stop(t);
    }
}

void attempt_shim_stop(struct attempt *t)
{
    if (t->shim == NULL) {
        return; /* attempt_shim_open says it */
    }
    Ds__ShimStop stop = DS__SHIM_STOP__INIT;
    stop.grace_ms = t->a->stop_grace_ms;
    stop.reason = t->a->stop_reason;
    conn_send(t->shim, RPC_SHIM_STOP, FRAME_REQUEST, ++t->next_shim_request, &stop.base);
}

/* ---- when it is gone */

/* Runs on the thread pool. work_code: 0 when no process of the attempt is left. */
static void clean(uv_work_t *work)
{
    struct attempt *t = work->data;
    char *mark = mem_printf("DS_RUN_DIR=%s", t->dir);
    char *cgroup = attempt_cgroup(t);
    /* A process that is just now executing shows no environment: only after some looks in vain is
     * none there. */
    int in_vain = 0;
    for (int i = 0; i < CLEAN_TRIES && in_vain < CLEAN_LOOKS; i++) {
        if (cgroup != NULL) {
            cgroup_kill(cgroup);
        }
        in_vain = proctree_kill_by_env(mark) == 0 ? in_vain + 1 : 0;
        clock_sleep_ms(CLEAN_PAUSE_MS);
    }
    t->work_code = in_vain == CLEAN_LOOKS ? 0 : ERR_AGAIN;
    if (cgroup != NULL && t->work_code == 0) {
        cgroup_remove(cgroup);
    }
    free(cgroup);
    free(mark);
}

/* The last line that the shim logged, for the message. */
static void last_log_line(const struct attempt *t, char *line, size_t bytes)
{
    char path[4096];
    struct buf text = {0};
    line[0] = 0;
    snprintf(path, sizeof path, "%s/" SHIM_LOG_FILE, t->dir);
    if (file_read(path, SHIM_LOG_MAX, &text, NULL) == 0 && text.len > 0) {
        if (text.data[text.len - 1] == '\n') {
            text.len--;
        }
        const char *whole = buf_cstr(&text);
        const char *newline = strrchr(whole, '\n');
        snprintf(line, bytes, "; it said: %s", newline != NULL ? newline + 1 : whole);
    }
    buf_fini(&text);
}

static void on_clean(uv_work_t *work, int status)
{
    (void)status;
    struct attempt *t = work->data;
    struct worker *w = t->worker;
    worker_dequeued(w);
    if (w->stage == WORKER_CLOSING) {
        return;
    }
    if (t->work_code != 0) {
        struct agent_shim_word word = {.stuck = "its shim died, and processes of it survive KILL"};
        agent_shim(w->agent, t->a, &word);
        t->clean_again = true;
        worker_retry(w);
    } else {
        char said[512];
        char why[640];
        last_log_line(t, said, sizeof said);
        snprintf(why, sizeof why, "the shim of this rank was killed%s", said);
        agent_shim_lost(w->agent, t->a, why, clock_wall_ms());
    }
}

void attempt_shim_gone(struct attempt *t)
{
    Ds__ShimStatus *status = NULL;
    if (t->a->stage == AGENT_ENDED) {
        return;
    }
    t->clean_again = false;
    if (attempt_dir_read_status(t->dir, &status, NULL) == 0) {
        attempt_feed(t, status);
        rpc_free(&status->base);
    }
    if (t->a->stage != AGENT_ENDED) {
        log_warn("job %" PRIu64 " epoch %" PRIu64
                 ": its shim is gone; looking for processes left over",
                 t->a->job, t->a->epoch);
        worker_queue(t->worker, &t->work, clean, on_clean);
    }
}
