/* JOB_UPDATE and JOB_RESIZE: what is changed about jobs that are queued or run. */
#include <stdio.h>
#include <string.h>

#include "daemon/core/rows.h"
#include "daemon/dsd.h"
#include "daemon/many.h"
#include "daemon/rpc.h"
#include "proto/jobspec.h"
#include "proto/model_config.h"

/* 0 on the wire lifts what the core lifts with ROW_NONE. */
static int64_t or_none(int64_t value)
{
    return value != 0 ? value : ROW_NONE;
}

static struct input_job_update changes(const Ds__JobUpdate *r, const char *user)
{
    struct input_job_update u = {
        .user = user,
        .priority = r->priority,
        .queue = r->queue,
        .account = r->account,
        .time_limit_ms = (int64_t)r->time_limit_ms,
        .not_before_ms = r->not_before_at,
        .deadline_ms = or_none(r->deadline_at),
        .array_limit = r->array_limit,
        .preemptible = r->preemptible != 0,
        .min_runtime_ms = (int64_t)r->min_runtime_ms,
    };
    u.fields = (r->has_priority ? JOB_FIELD_PRIORITY : 0u) |
               (r->queue != NULL ? JOB_FIELD_QUEUE : 0u) |
               (r->account != NULL ? JOB_FIELD_ACCOUNT : 0u) |
               (r->has_time_limit_ms ? JOB_FIELD_TIME_LIMIT : 0u) |
               (r->has_not_before_at ? JOB_FIELD_NOT_BEFORE : 0u) |
               (r->has_deadline_at ? JOB_FIELD_DEADLINE : 0u) |
               (r->has_array_limit ? JOB_FIELD_ARRAY_LIMIT : 0u) |
               (r->has_preemptible ? JOB_FIELD_PREEMPTIBLE : 0u) |
               (r->has_min_runtime_ms ? JOB_FIELD_MIN_RUNTIME : 0u);
    return u;
}

void rpc_job_update(struct call *call, const ProtobufCMessage *request)
{
    const Ds__JobUpdate *r = (const Ds__JobUpdate *)request;
    struct input_job_update update = changes(r, call->peer->user);
    struct err err = {0};
    if (update.fields == 0) {
        call_fail(call, ERR_INVALID, "the request changes nothing (such as --priority 10)");
        return;
    }
    if (r->not_before_at < 0 || r->deadline_at < 0) {
        call_fail(call, ERR_INVALID, "a time is before 1970");
        return;
    }
    if (r->account != NULL && rpc_check_name(r->account, 63, "account", &err) != 0) {
        call_fail(call, err.code, "%s", err.text);
        return;
    }
    struct many *m = many_begin(call, r->n_id, "jobs", many_reply_ids);
    for (size_t i = 0; m != NULL && i < r->n_id; i++) {
        m->items[i].id = update.job = r->id[i];
        struct input in = {.kind = INPUT_JOB_UPDATE};
        in.u.update = update;
        many_input(m, i, &in);
    }
}

/* The size is checked as at submit: mesh, batch, limits of elastic ranges. */
static int check_resize(struct dsd *dsd, uint64_t job, const Ds__JobResize *r, struct err *err)
{
    const char *model_json, *spec_json = core_job_spec(dsd->core, job, &model_json);
    struct jobspec spec = {0};
    struct model_config model;
    char nodes[64];
    const char *set[] = {nodes};
    if (spec_json == NULL) {
        return 0; /* the core says what is wrong */
    }
    snprintf(nodes, sizeof nodes, "nodes={min: %u, max: %u}", r->nodes_min, r->nodes_max);
    int rc = jobspec_parse(&spec, spec_json, strlen(spec_json), "resize", "/", set, 1, err);
    if (rc == 0 && model_json != NULL) {
        rc = jobspec_model(&spec, model_json, strlen(model_json), "resize", &model, err);
    }
    jobspec_fini(&spec);
    return rc;
}

void rpc_job_resize(struct call *call, const ProtobufCMessage *request)
{
    const Ds__JobResize *r = (const Ds__JobResize *)request;
    struct many *m = many_begin(call, r->n_id, "jobs", many_reply_ids);
    for (size_t i = 0; m != NULL && i < r->n_id; i++) {
        struct err err = {0};
        m->items[i].id = r->id[i];
        m->items[i].many = m;
        if (check_resize(call->dsd, r->id[i], r, &err) != 0) {
            many_refuse(m, i, err.code, err.text);
            continue;
        }
        struct input in = {.kind = INPUT_JOB_RESIZE};
        in.u.resize.job = r->id[i];
        in.u.resize.user = call->peer->user;
        in.u.resize.nodes_min = r->nodes_min;
        in.u.resize.nodes_max = r->nodes_max;
        many_input(m, i, &in);
    }
}
