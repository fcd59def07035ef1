/* Carries out what the core asked for, after it is durable. Orders to a worker that is not
 * connected are dropped: the core gives them again when the worker registers. */
#include "daemon/rpc.h"
#include "daemon/session.h"

static void reply(struct dsd *d, const struct effect *e)
{
    struct pending *p = slotmap_find(&d->pending, e->u.reply.token);
    if (p != NULL) {
        slotmap_remove(&d->pending, e->u.reply.token);
        p->done(p, e);
    }
}

static void start(struct dsd *d, struct session *s, const struct effect_start *e)
{
    Ds__AttemptStart m = DS__ATTEMPT_START__INIT;
    Ds__ResumePoint resume = DS__RESUME_POINT__INIT;
    m.term = d->term;
    m.job = e->job;
    m.epoch = e->epoch;
    m.name = (char *)e->name;
    m.user = (char *)e->user;
    m.spec = (char *)e->spec_json;
    m.model_json = (char *)e->model_json;
    m.workdir = (char *)e->workdir;
    m.node_rank = e->node_rank;
    m.node_count = e->node_count;
    m.rank_first = e->rank_first;
    m.world_size = e->world_size;
    m.gpu_index = (uint32_t *)e->gpu_index;
    m.n_gpu_index = e->gpu_count;
    m.master_addr = (char *)e->master_addr;
    m.master_port = e->master_port;
    m.checkpoint_dir = (char *)e->checkpoint_dir;
    if (e->array_job != 0) {
        m.has_array_job = m.has_array_index = m.has_array_size = 1;
        m.array_job = e->array_job;
        m.array_index = e->array_index;
        m.array_size = e->array_size;
    }
    if (e->resume_ckpt != 0) {
        resume.ckpt = e->resume_ckpt;
        resume.step = e->resume_step;
        resume.path = (char *)e->resume_path;
        resume.manifest = (char *)e->resume_manifest;
        m.resume = &resume;
    }
    session_order(s, RPC_ATTEMPT_START, &m.base, e->job, e->epoch, NULL);
}

static void stop(struct dsd *d, struct session *s, const struct effect *e)
{
    Ds__AttemptStop m = DS__ATTEMPT_STOP__INIT;
    m.term = d->term;
    m.job = e->u.stop.job;
    m.epoch = e->u.stop.epoch;
    m.grace_ms = e->u.stop.grace_ms;
    m.reason = (char *)(e->u.stop.reason != NULL ? e->u.stop.reason : "");
    session_order(s, RPC_ATTEMPT_STOP, &m.base, m.job, m.epoch, NULL);
}

static void forget(struct dsd *d, struct session *s, const struct effect *e)
{
    Ds__AttemptForget m = DS__ATTEMPT_FORGET__INIT;
    m.term = d->term;
    m.job = e->u.stop.job;
    m.epoch = e->u.stop.epoch;
    session_order(s, RPC_ATTEMPT_FORGET, &m.base, m.job, m.epoch, NULL);
}

static void publish(struct dsd *d, struct session *s, const struct effect *e)
{
    Ds__CkptPublish m = DS__CKPT_PUBLISH__INIT;
    m.term = d->term;
    m.ckpt = e->u.ckpt.ckpt;
    m.path = (char *)e->u.ckpt.path;
    m.manifest = (char *)e->u.ckpt.manifest;
    session_order(s, RPC_CKPT_PUBLISH, &m.base, 0, m.ckpt, NULL);
}

static void remove_checkpoint(struct dsd *d, struct session *s, const struct effect *e)
{
    Ds__CkptRemove m = DS__CKPT_REMOVE__INIT;
    m.term = d->term;
    m.ckpt = e->u.ckpt.ckpt;
    m.path = (char *)e->u.ckpt.path;
    session_order(s, RPC_CKPT_REMOVE, &m.base, 0, m.ckpt, NULL);
}

static void order(struct dsd *d, struct session *s, const struct effect *e)
{
    switch (e->kind) {
    case EFFECT_ATTEMPT_START:
        start(d, s, &e->u.start);
        break;
    case EFFECT_ATTEMPT_STOP:
        stop(d, s, e);
        break;
    case EFFECT_ATTEMPT_FORGET:
        forget(d, s, e);
        break;
    case EFFECT_CKPT_PUBLISH:
        publish(d, s, e);
        break;
    case EFFECT_CKPT_REMOVE:
        remove_checkpoint(d, s, e);
        break;
    case EFFECT_DROP_SESSION:
        conn_finish(
            s->peer->conn,
            "its registration is over: the lease ran out, a newer connection took its place, or "
            "it knows a newer coordinator (the events say which)");
        break;
    case EFFECT_REPLY:
    case EFFECT_EVENT:
    case EFFECT_EPOCH_OVER:
        break; /* not for a session */
    }
}

static void release(void *world, const struct effect *e)
{
    struct dsd *d = world;
    switch (e->kind) {
    case EFFECT_REPLY:
        reply(d, e);
        break;
    case EFFECT_EVENT:
        rpc_event_happened(d, e->u.event.seq, e->u.event.job);
        break;
    case EFFECT_EPOCH_OVER:
        rendezvous_void(d->rendezvous, e->u.stop.job, e->u.stop.epoch);
        break;
    case EFFECT_ATTEMPT_START:
    case EFFECT_ATTEMPT_STOP:
    case EFFECT_ATTEMPT_FORGET:
    case EFFECT_CKPT_PUBLISH:
    case EFFECT_CKPT_REMOVE:
    case EFFECT_DROP_SESSION: {
        struct session *s = session_find(d, e->session);
        if (s != NULL) {
            order(d, s, e);
        }
        break;
    }
    }
}

const struct effect_sink dsd_effects = {.release = release};
