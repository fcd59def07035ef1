/* What workers say. Everything becomes an input, answered once it is durable: a worker that got an
 * answer may forget. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "daemon/rpc.h"
#include "daemon/session.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/utf8.h"

#define NODE_NAME_MAX  255
#define TEXT_MAX       256
#define GPUS_MAX       64
#define ATTEMPTS_MAX   4096
#define EXITS_MAX      4096
#define METRICS_MAX    10000
#define LAYOUT_MAX     65536
#define LAYERS_MAX     16384
#define GUARD_TEXT_MAX 1024
#define SHARD_NAME_MAX 127

/* ------------------------------------------------------------------ attempts */

/* into->exits is allocated. */
static int convert_attempt(const Ds__AttemptReport *m, struct input_attempt_report *into,
                           struct err *err)
{
    if (m->phase < 1 || m->phase > 3) {
        return err_set(err, ERR_INVALID, "attempt report with the unknown phase %u", m->phase);
    }
    if (m->n_exits > EXITS_MAX) {
        return err_set(err, ERR_INVALID, "attempt report with %zu exits, at most %d are allowed",
                       m->n_exits, EXITS_MAX);
    }
    struct input_exit *exits = mem_alloc_array(m->n_exits, sizeof *exits);
    for (size_t i = 0; i < m->n_exits; i++) {
        const Ds__RankExit *e = m->exits[i];
        exits[i] = (struct input_exit){.rank = e->rank,
                                       .code = e->code,
                                       .signal = e->signal,
                                       .at_ms = e->at > 0 ? e->at : 0,
                                       .last_words = e->last_words};
    }
    *into = (struct input_attempt_report){.job = m->job,
                                          .epoch = m->epoch,
                                          .phase = m->phase,
                                          .error = m->error,
                                          .stuck = m->stuck,
                                          .exits = exits,
                                          .exit_count = m->n_exits};
    return 0;
}

void rpc_attempt_report(struct call *call, const ProtobufCMessage *request)
{
    struct input in = {.kind = INPUT_ATTEMPT_REPORT, .session = call->peer->session->id};
    const Ds__AttemptReport *m = (const Ds__AttemptReport *)request;
    struct err err = {0};
    if (convert_attempt(m, &in.u.attempt, &err) != 0) {
        call_fail(call, err.code, "%s", err.text);
        return;
    }
    call_commit(call, &in, call_done_empty);
    free((void *)in.u.attempt.exits);
}

/* ------------------------------------------------------------------ WORKER_REGISTER */

static int check_text(const char *text, const char *what, struct err *err)
{
    return strlen(text) <= TEXT_MAX
               ? 0
               : err_set(err, ERR_INVALID, "%s has more than %d bytes", what, TEXT_MAX);
}

static int check_register(const Ds__WorkerRegister *m, struct err *err)
{
    TRY(rpc_check_name(m->name, NODE_NAME_MAX, "node", err));
    TRY(check_text(m->boot_id, "boot_id", err));
    TRY(check_text(m->version, "version", err));
    if (m->addr != NULL &&
        (m->addr[0] == 0 || strlen(m->addr) > TEXT_MAX ||
         strspn(m->addr, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:-_%") !=
             strlen(m->addr))) {
        return err_set(err, ERR_INVALID, "node %s: '%.80s' is not an address", m->name, m->addr);
    }
    if (m->n_gpus > GPUS_MAX) {
        return err_set(err, ERR_INVALID, "node %s has %zu accelerators, at most %d are supported",
                       m->name, m->n_gpus, GPUS_MAX);
    }
    if (m->n_attempts > ATTEMPTS_MAX) {
        return err_set(err, ERR_INVALID, "node %s reports %zu attempts, at most %d are supported",
                       m->name, m->n_attempts, ATTEMPTS_MAX);
    }
    for (size_t i = 0; i < m->n_gpus; i++) {
        const Ds__WorkerGpu *gpu = m->gpus[i];
        TRY(check_text(gpu->uuid, "an accelerator's uuid", err));
        TRY(check_text(gpu->model, "an accelerator's model", err));
        TRY(check_text(gpu->health != NULL ? gpu->health : "", "an accelerator's health", err));
        if (gpu->index >= GPUS_MAX || gpu->model[0] == 0) {
            return err_set(err, ERR_INVALID,
                           "node %s: accelerator %u '%.40s' needs a model and an index below %d",
                           m->name, gpu->index, gpu->model, GPUS_MAX);
        }
        for (size_t k = 0; k < i; k++) {
            if (m->gpus[k]->index == gpu->index) {
                return err_set(err, ERR_INVALID, "node %s: two accelerators have the index %u",
                               m->name, gpu->index);
            }
        }
    }
    return 0;
}

/* Where other nodes reach it when it does not say: the address it came from, without the port. */
static void default_addr(const struct conn *conn, char *addr, size_t bytes)
{
    if (conn->transport.kind == TRANSPORT_UNIX) {
        snprintf(addr, bytes, "127.0.0.1");
        return;
    }
    const char *text = conn->peer.text;
    const char *colon = strrchr(text, ':');
    int len = colon != NULL ? (int)(colon - text) : (int)strlen(text);
    bool bracketed = text[0] == '[';
    snprintf(addr, bytes, "%.*s", bracketed ? len - 2 : len, text + (bracketed ? 1 : 0));
}

static void on_registered(struct call *call, const struct effect *reply)
{
    struct dsd *d = call->dsd;
    struct session *s = call->peer != NULL ? call->peer->session : NULL;
    if (reply->u.reply.code != 0) {
        if (s != NULL && !s->joined) {
            log_warn("refused worker %s: %s", s->name, reply->u.reply.text);
            s->known = false;
            session_destroy(s);
        }
        call_fail(call, reply->u.reply.code, "%s", reply->u.reply.text);
        return;
    }
    Ds__WorkerRegisterReply m = DS__WORKER_REGISTER_REPLY__INIT;
    m.term = d->term;
    m.heartbeat_ms = (uint64_t)d->config->core.heartbeat_ms;
    m.lease_ms = (uint64_t)d->config->core.lease_ms;
    if (s != NULL) {
        log_info("worker %s %s (%s, %s)", s->name, s->joined ? "registered again" : "joined",
                 s->peer->conn->peer.text, call->peer->version);
        s->joined = true;
    }
    call_reply(call, &m.base);
}

static int convert_register(const Ds__WorkerRegister *m, struct input_gpu *gpus,
                            struct input_attempt_report *attempts, struct err *err)
{
    TRY(check_register(m, err));
    for (size_t i = 0; i < m->n_gpus; i++) {
        const Ds__WorkerGpu *g = m->gpus[i];
        gpus[i] =
            (struct input_gpu){.index = g->index,
                               .uuid = g->uuid,
                               .model = g->model,
                               .memory_bytes = g->has_memory_bytes ? g->memory_bytes : 0,
                               .health = g->health != NULL && g->health[0] != 0 ? g->health : "ok"};
    }
    for (size_t i = 0; i < m->n_attempts; i++) {
        TRY(convert_attempt(m->attempts[i], &attempts[i], err));
    }
    return 0;
}

void rpc_worker_register(struct call *call, const ProtobufCMessage *request)
{
    const Ds__WorkerRegister *m = (const Ds__WorkerRegister *)request;
    struct input_gpu *gpus = mem_alloc_array(m->n_gpus, sizeof *gpus);
    struct input_attempt_report *attempts = mem_alloc_array(m->n_attempts, sizeof *attempts);
    struct err err = {0};
    const struct session *old = call->peer->session;
    if (convert_register(m, gpus, attempts, &err) != 0) {
        call_fail(call, err.code, "%s", err.text);
    } else if (old != NULL && strcmp(old->name, m->name) != 0) {
        call_fail(call, ERR_CONFLICT,
                  "this connection is node %s and cannot become %s (open another)", old->name,
                  m->name);
    } else {
        char addr[INET6_ADDRSTRLEN + 1];
        default_addr(call->peer->conn, addr, sizeof addr);
        struct session *s = session_of_peer(call->peer, m->name);
        s->known = true;
        struct input in = {.kind = INPUT_WORKER_REGISTER, .session = s->id};
        in.u.reg = (struct input_register){.name = m->name,
                                           .boot_id = m->boot_id,
                                           .version = m->version,
                                           .addr = m->addr != NULL ? m->addr : addr,
                                           .gpus = gpus,
                                           .gpu_count = m->n_gpus,
                                           .attempts = attempts,
                                           .attempt_count = m->n_attempts,
                                           .term_seen = m->term_seen};
        call_commit(call, &in, on_registered);
    }
    for (size_t i = 0; i < m->n_attempts; i++) {
        free((void *)attempts[i].exits);
    }
    free(attempts);
    free(gpus);
}

/* ------------------------------------------------------------------ HEARTBEAT */

void rpc_heartbeat(struct call *call, const ProtobufCMessage *request)
{
    uint64_t term = ((const Ds__Heartbeat *)request)->term;
    if (term != call->dsd->term) {
        call_fail(call, ERR_STALE,
                  "heartbeat for term %llu, this coordinator has term %llu (register again)",
                  (unsigned long long)term, (unsigned long long)call->dsd->term);
        return;
    }
    /* The one answer that waits for no commit: a lease is not stored. */
    dsd_input(call->dsd,
              &(struct input){.kind = INPUT_HEARTBEAT, .session = call->peer->session->id}, NULL);
    call_outcome(call, 0, "");
}

/* ------------------------------------------------------------------ SHARD_REPORT */

static bool is_hex(const char *text, size_t len)
{
    return strlen(text) == len && strspn(text, "0123456789abcdef") == len;
}

static int check_layout(const char *layout, struct err *err)
{
    if (strlen(layout) > LAYOUT_MAX) {
        return err_set(err, ERR_TOO_LARGE, "shard report with a layout of over %d bytes",
                       LAYOUT_MAX);
    }
    json_error_t why;
    json_t *json = json_loads(layout, JSON_REJECT_DUPLICATES, &why);
    bool object = json_is_object(json);
    json_decref(json);
    return object
               ? 0
               : err_set(err, ERR_INVALID, "shard report with a layout that is not a JSON object");
}

static int check_shard(const Ds__ShardReport *m, struct err *err)
{
    const Ds__CkptShard *s = m->shard;
    if (m->world_size == 0 || s->rank >= m->world_size) {
        return err_set(err, ERR_INVALID, "shard report of rank %u of %u", s->rank, m->world_size);
    }
    TRY(rpc_check_name(s->file, SHARD_NAME_MAX, "shard file", err));
    if (!is_hex(s->xxh3, 32) || !is_hex(s->sha256, 64)) {
        return err_set(err, ERR_INVALID,
                       "shard %s: xxh3 has 32 and sha256 64 lower-case hex digits", s->file);
    }
    return check_layout(m->layout, err);
}

void rpc_shard_report(struct call *call, const ProtobufCMessage *request)
{
    const Ds__ShardReport *m = (const Ds__ShardReport *)request;
    struct err err = {0};
    if (check_shard(m, &err) != 0) {
        call_fail(call, err.code, "%s", err.text);
        return;
    }
    struct input in = {.kind = INPUT_SHARD_REPORT, .session = call->peer->session->id};
    in.u.shard = (struct input_shard){.job = m->job,
                                      .epoch = m->epoch,
                                      .step = m->step,
                                      .world_size = m->world_size,
                                      .rank = m->shard->rank,
                                      .file = m->shard->file,
                                      .xxh3 = m->shard->xxh3,
                                      .sha256 = m->shard->sha256,
                                      .bytes = m->shard->bytes,
                                      .layout = m->layout};
    call_commit(call, &in, call_done_empty);
}

/* ------------------------------------------------------------------ GUARD_REPORT */

void rpc_guard_report(struct call *call, const ProtobufCMessage *request)
{
    const Ds__GuardReport *m = (const Ds__GuardReport *)request;
    size_t len = strlen(m->text);
    if (len > GUARD_TEXT_MAX || !utf8_valid(m->text, len)) {
        call_fail(call, ERR_INVALID, "guard report with a text over %d bytes, or not in UTF-8",
                  GUARD_TEXT_MAX);
        return;
    }
    struct input in = {.kind = INPUT_GUARD_REPORT, .session = call->peer->session->id};
    in.u.guard = (struct input_guard){.job = m->job,
                                      .epoch = m->epoch,
                                      .decided = m->decided,
                                      .action = m->action,
                                      .text = m->text,
                                      .step = m->step,
                                      .back_to = m->has_back_to ? m->back_to : m->step,
                                      .has_odd_rank = m->has_odd_rank,
                                      .odd_rank = m->odd_rank};
    call_commit(call, &in, call_done_empty);
}

/* ------------------------------------------------------------------ STEP_REPORT */

static double optional(protobuf_c_boolean has, double value)
{
    return has ? value : (double)NAN;
}

static struct input_metric convert_metric(const Ds__Metric *m)
{
    /* NaN means absent; a loss is never absent, and one that is not a number has diverged. */
    return (struct input_metric){.step = m->step,
                                 .epoch = m->epoch,
                                 .tokens = m->tokens,
                                 .loss = isnan(m->loss) ? (double)INFINITY : m->loss,
                                 .mtp_loss = optional(m->has_mtp_loss, m->mtp_loss),
                                 .grad_norm = optional(m->has_grad_norm, m->grad_norm),
                                 .lr = optional(m->has_lr, m->lr),
                                 .tokens_per_s = optional(m->has_tokens_per_s, m->tokens_per_s),
                                 .balance_maxvio =
                                     optional(m->has_balance_maxvio, m->balance_maxvio),
                                 .valid_loss = optional(m->has_valid_loss, m->valid_loss),
                                 .valid_maxvio = optional(m->has_valid_maxvio, m->valid_maxvio),
                                 .layer_maxvio = m->layer_maxvio,
                                 .step_ms = m->has_step_ms ? m->step_ms : 0};
}

void rpc_step_report(struct call *call, const ProtobufCMessage *request)
{
    const Ds__StepReport *m = (const Ds__StepReport *)request;
    if (m->n_metric > METRICS_MAX) {
        call_fail(call, ERR_TOO_LARGE, "step report with %zu steps, at most %d are allowed",
                  m->n_metric, METRICS_MAX);
        return;
    }
    for (size_t i = 0; i < m->n_metric; i++) {
        const char *layers = m->metric[i]->layer_maxvio;
        if (layers != NULL &&
            (strlen(layers) > LAYERS_MAX || strspn(layers, "0123456789.,:") != strlen(layers))) {
            call_fail(call, ERR_INVALID, "step report with a layer_maxvio that is none");
            return;
        }
    }
    struct input_metric *metrics = mem_alloc_array(m->n_metric, sizeof *metrics);
    for (size_t i = 0; i < m->n_metric; i++) {
        metrics[i] = convert_metric(m->metric[i]);
    }
    struct input in = {.kind = INPUT_STEP_REPORT, .session = call->peer->session->id};
    in.u.steps = (struct input_steps){.job = m->job,
                                      .epoch = m->epoch,
                                      .steps = m->steps,
                                      .metrics = metrics,
                                      .metric_count = m->n_metric,
                                      .ckpt_stall_ms = m->ckpt_stall_ms,
                                      .data_wait_ms = m->data_wait_ms};
    call_commit(call, &in, call_done_empty);
    free(metrics);
}
