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
    TRY(model_config_parse(&model, r->model_json, len, spec->train.model, err));
    return jobspec_check_model(spec, &model, r->spec_name, err);
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
    call_reply(call, &m.base);
}

static int submit(struct call *call, const Ds__JobSubmit *r, struct jobspec *spec, char **json,
                  struct err *err)
{
    TRY(check_request(r, err));
    TRY(jobspec_parse(spec, r->spec, strlen(r->spec), r->spec_name, r->spec_dir,
                      (const char *const *)r->set, r->n_set, err));
    TRY(check_model(r, spec, err));
    *json = jobspec_to_json(spec);
    TRY(check_size(r, spec, *json, err));

    char hash[65];
    hash_request(r, call->peer->user, hash);
    struct input in = {.kind = INPUT_JOB_SUBMIT};
    in.u.submit = (struct input_submit){.spec = spec,
                                        .place = r->spec_name,
                                        .spec_json = *json,
                                        .model_json = spec->has_train ? r->model_json : NULL,
                                        .workdir = r->workdir != NULL ? r->workdir : r->spec_dir,
                                        .user = call->peer->user,
                                        .key = r->key,
                                        .request_hash = hash,
                                        .dry_run = r->has_dry_run && r->dry_run};
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
