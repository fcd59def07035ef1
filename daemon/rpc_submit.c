/* JOB_SUBMIT: everything that can be wrong with a job is found here, before the core hears of it,
 * and named with its place. */
#include <stdlib.h>
#include <string.h>

#include "daemon/rpc.h"
#include "lib/mem.h"
#include "proto/jobspec.h"
#include "proto/manifest.h"
#include "proto/model_config.h"

/* What has to fit into one frame later: the start order holds the spec, the model and the manifest
 * of a checkpoint, in which each rank has about 200 bytes. */
#define SPEC_BYTES_MAX  (256u * 1024u)
#define MODEL_BYTES_MAX (256u * 1024u)
#define RANKS_MAX       16384u
#define KEY_BYTES_MAX   128u

static int check_request(const Ds__JobSubmit *r, struct err *err)
{
    if (r->spec_dir[0] != '/') {
        return err_set(err, ERR_INVALID, "spec_dir '%.80s' is not an absolute path", r->spec_dir);
    }
    if (r->workdir != NULL && r->workdir[0] != '/') {
        return err_set(err, ERR_INVALID, "workdir '%.80s' is not an absolute path", r->workdir);
    }
    size_t key_len = r->key != NULL ? strlen(r->key) : 1;
    if (key_len == 0 || key_len > KEY_BYTES_MAX) {
        return err_set(err, ERR_INVALID, "a submit key has 1 to %u bytes, not %zu", KEY_BYTES_MAX,
                       key_len);
    }
    return 0;
}

static int check_model(const Ds__JobSubmit *r, const struct jobspec *spec, struct err *err)
{
    if (!spec->has_train) {
        return 0;
    }
    if (r->model_json == NULL) {
        return err_set(
            err, ERR_INVALID,
            "%s: train.model is %s, but its text did not come with the request (submit with dsctl)",
            r->spec_name, spec->train.model);
    }
    size_t len = strlen(r->model_json);
    if (len > MODEL_BYTES_MAX) {
        return err_set(err, ERR_TOO_LARGE, "%s has %zu bytes, at most %u are allowed",
                       spec->train.model, len, MODEL_BYTES_MAX);
    }
    struct model_config model;
    return jobspec_model(spec, r->model_json, len, r->spec_name, &model, err);
}

/* `init_from: job:12` becomes the folder of that job's checkpoints: the trainer takes the newest
 * when it starts. */
static int find_weights(struct dsd *dsd, struct jobspec *spec, const char *spec_name,
                        struct err *err)
{
    struct train_spec *t = &spec->train;
    int64_t submitted_ms;
    char *root = NULL;
    if (t->init_job == 0) {
        return 0;
    }
    if (views_job_ckpt_root(dsd->views, t->init_job, &submitted_ms, &root, err) != 0) {
        return err_wrap(err, "%s: train.init_from", spec_name);
    }
    t->init_from = core_ckpt_folder(dsd->core, t->init_job, submitted_ms, root);
    t->init_job = 0;
    free(root);
    return 0;
}

static int check_size(const Ds__JobSubmit *r, const struct jobspec *spec, const char *json,
                      struct err *err)
{
    uint64_t ranks =
        (uint64_t)spec->nodes_max * (spec->gpus_per_node > 0 ? spec->gpus_per_node : 1);
    if (ranks > RANKS_MAX) {
        return err_set(err, ERR_INVALID,
                       "%s: nodes: %u x %u ranks are %llu, at most %u are allowed", r->spec_name,
                       spec->nodes_max, spec->gpus_per_node, (unsigned long long)ranks, RANKS_MAX);
    }
    if (strlen(json) > SPEC_BYTES_MAX) {
        return err_set(err, ERR_TOO_LARGE,
                       "%s: the job has %zu bytes with all its values, at most %u are allowed",
                       r->spec_name, strlen(json), SPEC_BYTES_MAX);
    }
    return 0;
}

/* Two requests with one key are the same when everything that makes the job is. */
static void hash_request(const Ds__JobSubmit *r, const char *user, char sha256[65])
{
    struct buf all = {0};
    const char *parts[] = {user, r->spec, r->spec_dir, r->model_json != NULL ? r->model_json : "",
                           r->workdir != NULL ? r->workdir : ""};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        buf_append(&all, parts[i], strlen(parts[i]) + 1);
    }
    for (size_t i = 0; i < r->n_set; i++) {
        buf_append(&all, r->set[i], strlen(r->set[i]) + 1);
    }
    manifest_digest_text(all.data, all.len, sha256);
    buf_fini(&all);
}

static void on_done(struct call *call, const struct effect *reply)
{
    if (reply->u.reply.code != 0) {
        call_fail(call, reply->u.reply.code, "%s", reply->u.reply.text);
        return;
    }
    Ds__JobSubmitReply m = DS__JOB_SUBMIT_REPLY__INIT;
    m.id = reply->u.reply.id;
    m.name = call->data;
    m.has_existing = 1;
    m.existing = reply->u.reply.existing;
    rpc_scheduled(call->dsd, &m.has_scheduled_at, &m.scheduled_at);
    call_reply(call, &m.base);
}

/* Everything that is checked before the core. *submit borrows from the others. */
static int read_request(struct call *call, const Ds__JobSubmit *r, struct jobspec *spec,
                        char **json, struct input_submit *submit, struct err *err)
{
    TRY(check_request(r, err));
    TRY(jobspec_parse(spec, r->spec, strlen(r->spec), r->spec_name, r->spec_dir,
                      (const char *const *)r->set, r->n_set, err));
    TRY(check_model(r, spec, err));
    TRY(find_weights(call->dsd, spec, r->spec_name, err));
    *json = jobspec_to_json(spec);
    TRY(check_size(r, spec, *json, err));
    *submit = (struct input_submit){.spec = spec,
                                    .place = r->spec_name,
                                    .spec_json = *json,
                                    .model_json = spec->has_train ? r->model_json : NULL,
                                    .workdir = r->workdir != NULL ? r->workdir : r->spec_dir,
                                    .user = call->peer->user,
                                    .key = r->key,
                                    .dry_run = r->has_dry_run && r->dry_run};
    return 0;
}

static int submit(struct call *call, const Ds__JobSubmit *r, struct jobspec *spec, char **json,
                  struct err *err)
{
    char hash[65];
    struct input in = {.kind = INPUT_JOB_SUBMIT};
    TRY(read_request(call, r, spec, json, &in.u.submit, err));
    hash_request(r, call->peer->user, hash);
    in.u.submit.request_hash = hash;
    call->data = mem_strdup(spec->name);
    call_commit(call, &in, on_done);
    return 0;
}

void rpc_job_submit(struct call *call, const ProtobufCMessage *request)
{
    struct jobspec spec = {0};
    char *json = NULL;
    struct err err = {0};
    if (submit(call, (const Ds__JobSubmit *)request, &spec, &json, &err) != 0) {
        call_fail(call, err.code, "%s", err.text);
    }
    free(json);
    jobspec_fini(&spec);
}

/* ------------------------------------------------------------------ JOB_PLAN */

static const char *action_name(enum core_plan_action action)
{
    return action == PLAN_START ? "start" : action == PLAN_PREEMPT ? "preempt" : "wait";
}

static void answer_plan(struct call *call, const char *name, struct core_plan *plan)
{
    Ds__JobPlan m = DS__JOB_PLAN__INIT;
    Ds__Reason reason = DS__REASON__INIT;
    size_t most = sizeof plan->victims / sizeof plan->victims[0];
    reason.code = plan->reason;
    reason.text = plan->text;
    m.action = (char *)(uintptr_t)action_name(plan->action);
    m.name = (char *)(uintptr_t)name;
    m.reason = &reason;
    m.has_start_at = plan->start_ms != INT64_MAX;
    m.start_at = plan->start_ms;
    m.nodes = plan->nodes;
    m.leaves = plan->leaves;
    m.crossings = plan->crossings;
    m.node_names = plan->node_names[0] != 0 ? plan->node_names : NULL;
    m.has_behind = plan->behind != 0;
    m.behind = plan->behind;
    m.victims = plan->victims;
    m.n_victims = plan->victim_count < most ? plan->victim_count : most;
    m.victim_count = plan->victim_count;
    rpc_scheduled(call->dsd, &m.has_scheduled_at, &m.scheduled_at);
    call_reply(call, &m.base);
}

void rpc_job_plan(struct call *call, const ProtobufCMessage *request)
{
    struct jobspec spec = {0};
    struct input_submit submit = {0};
    struct core_plan plan;
    char *json = NULL;
    struct err err = {0};
    if (read_request(call, (const Ds__JobSubmit *)request, &spec, &json, &submit, &err) != 0) {
        call_fail(call, err.code, "%s", err.text);
    } else {
        submit.key = NULL;
        core_plan_submit(call->dsd->core, &submit, dsd_now_ms(call->dsd), &plan);
        if (plan.action == PLAN_REFUSED) {
            call_fail(call, plan.code, "%s", plan.text);
        } else {
            answer_plan(call, spec.name, &plan);
        }
    }
    free(json);
    jobspec_fini(&spec);
}
