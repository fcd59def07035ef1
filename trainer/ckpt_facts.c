#include "trainer/ckpt_facts.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/log.h"
#include "lib/mem.h"
#include "lib/utf8.h"
#include "proto/manifest.h"
#include "trainer/guard_file.h"

#define RUN_BYTES_MAX 32768 /* a layout has 64 KiB; job files that fill them have absurd paths */
#define FORM          (JSON_COMPACT | JSON_SORT_KEYS)

static const char *const precisions[] = {
    [PRECISION_FP32] = "fp32", [PRECISION_BF16] = "bf16", [PRECISION_FP8] = "fp8"};

static const char *const schedules[] = {
    [PIPELINE_1F1B] = "1f1b", [PIPELINE_DUALPIPEV] = "dualpipev"};

/* ---- making */

static void set_model(struct ckpt_facts *f, const struct model_config *model)
{
    f->model = model_config_to_json(model);
    manifest_digest_text(f->model, strlen(f->model), f->model_sha256);
    f->loss = f->mtp_loss = f->valid_loss = NAN;
}

/* What a model card can tell of the job. Without the seed, which is a fact of its own, and may be a
 * number that this JSON library has not. */
static char *run_of(const struct jobspec *spec)
{
    static const char *const keys[] = {"name", "stage", "train"};
    struct jobspec same = *spec;
    same.train.seed = 0;
    char *text = jobspec_to_json(&same);
    json_t *all = json_loads(text, 0, NULL);
    json_t *run = json_object();
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        json_object_set(run, keys[i], json_object_get(all, keys[i]));
    }
    json_object_del(json_object_get(run, "train"), "seed");
    free(text);
    text = json_dumps(run, FORM);
    json_decref(run);
    json_decref(all);
    if (text != NULL && strlen(text) > RUN_BYTES_MAX) {
        free(text);
        text = NULL;
    }
    return text;
}

void ckpt_facts_init(struct ckpt_facts *f, const struct jobspec *spec,
                     const struct model_config *model, const struct mesh *mesh, uint32_t threads,
                     uint64_t corpus_tokens)
{
    *f = (struct ckpt_facts){
        .seed = spec->train.seed,
        .corpus_tokens = corpus_tokens,
        .sequence_length = spec->train.sequence_length,
        .global_batch = spec->train.global_batch,
        .pipeline = mesh->pipeline,
        .expert = mesh->expert,
        .data = mesh->data,
        .parted = spec->train.zero > 0,
        .threads = threads,
    };
    snprintf(f->schedule, sizeof f->schedule, "%s", schedules[spec->train.pipeline_kind]);
    snprintf(f->precision, sizeof f->precision, "%s", precisions[spec->train.precision]);
    set_model(f, model);
    /* A worker keeps the model's file in a folder of its own, so its path differs from node to
     * node; its content is above. */
    struct jobspec same = *spec;
    same.train.model = (char *)"";
    char *text = jobspec_to_json(&same);
    manifest_digest_text(text, strlen(text), f->spec_sha256);
    free(text);
    f->run = run_of(&same);
}

void ckpt_facts_init_weights(struct ckpt_facts *f, const struct model_config *model, uint64_t seed,
                             const char *origin)
{
    *f = (struct ckpt_facts){
        .seed = seed, .pipeline = 1, .expert = 1, .data = 1, .threads = 1, .weights_only = true};
    snprintf(f->precision, sizeof f->precision, "fp32");
    set_model(f, model);
    f->origin = mem_strdup(origin);
    utf8_clean(f->origin, strlen(f->origin)); /* it has a path in it */
}

void ckpt_facts_fini(struct ckpt_facts *f)
{
    free(f->model);
    free(f->run);
    free(f->origin);
    *f = (struct ckpt_facts){0};
}

/* ---- writing */

static void put_real(json_t *root, const char *key, double value)
{
    if (isfinite(value)) {
        json_object_set_new(root, key, json_real(value));
    }
}

static void put_object(json_t *root, const char *key, const char *json)
{
    if (json != NULL) {
        json_object_set_new(root, key, json_loads(json, 0, NULL));
    }
}

static json_t *encode_sources(const struct ckpt_facts *f)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < f->source_count; i++) {
        const struct ckpt_source *s = &f->sources[i];
        json_array_append_new(list,
                              json_pack("{s:I,s:I,s:I}", "tokens", (json_int_t)s->tokens, "epoch",
                                        (json_int_t)s->epoch, "shown", (json_int_t)s->shown));
    }
    return list;
}

char *ckpt_facts_encode(const struct ckpt_facts *f)
{
    json_t *root = json_pack(
        "{s:i,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:s,s:{s:I,s:I,s:I},s:s,s:s}", "format", 1, "step",
        (json_int_t)f->step, "tokens", (json_int_t)f->tokens, "position", (json_int_t)f->position,
        "seed", (json_int_t)f->seed, "corpus_tokens", (json_int_t)f->corpus_tokens,
        "sequence_length", (json_int_t)f->sequence_length, "global_batch",
        (json_int_t)f->global_batch, "precision", f->precision, "mesh", "pipeline",
        (json_int_t)f->pipeline, "expert", (json_int_t)f->expert, "data", (json_int_t)f->data,
        "model_sha256", f->model_sha256, "spec_sha256", f->spec_sha256);
    if (f->guard.count > 0 || f->guard.applied > 0) {
        char *guard = guard_state_encode(&f->guard);
        put_object(root, "guard", guard);
        free(guard);
    }
    if (f->source_count > 0) {
        json_object_set_new(root, "sources", encode_sources(f));
    }
    if (f->weights_only) {
        json_object_set_new(root, "weights_only", json_true());
    }
    if (f->schedule[0] != 0) {
        json_t *mesh = json_object_get(root, "mesh");
        json_object_set_new(mesh, "schedule", json_string(f->schedule));
        json_object_set_new(mesh, "zero", json_integer(f->parted));
    }
    put_real(root, "loss", f->loss);
    put_real(root, "mtp_loss", f->mtp_loss);
    if (f->valid_step > 0) {
        put_real(root, "valid_loss", f->valid_loss);
        json_object_set_new(root, "valid_step", json_integer((json_int_t)f->valid_step));
    }
    put_object(root, "model", f->model);
    put_object(root, "run", f->run);
    if (f->origin != NULL) {
        json_object_set_new(root, "origin", json_string(f->origin));
    }
    char *text = json_dumps(root, FORM);
    json_decref(root);
    return text;
}

/* ---- reading */

static int get_u64(const json_t *object, const char *key, uint64_t max, uint64_t *out,
                   const char *name, struct err *err)
{
    const json_t *v = json_object_get(object, key);
    if (!json_is_integer(v) || (uint64_t)json_integer_value(v) > max) {
        return err_set(err, ERR_CORRUPT, "%s: layout: %s is missing or out of range", name, key);
    }
    *out = (uint64_t)json_integer_value(v);
    return 0;
}

static int get_u32(const json_t *object, const char *key, uint32_t *out, const char *name,
                   struct err *err)
{
    uint64_t v = 0;
    TRY(get_u64(object, key, UINT32_MAX, &v, name, err));
    *out = (uint32_t)v;
    return 0;
}

static int get_text(const json_t *object, const char *key, char *out, size_t bytes,
                    const char *name, struct err *err)
{
    const char *v = json_string_value(json_object_get(object, key));
    if (v == NULL || strlen(v) >= bytes) {
        return err_set(err, ERR_CORRUPT, "%s: layout: %s is missing or too long", name, key);
    }
    memcpy(out, v, strlen(v) + 1);
    return 0;
}

/* These may be absent: NAN. */
static int get_real(const json_t *object, const char *key, double *out, const char *name,
                    struct err *err)
{
    const json_t *v = json_object_get(object, key);
    *out = v != NULL ? json_number_value(v) : NAN;
    return v == NULL || json_is_number(v)
               ? 0
               : err_set(err, ERR_CORRUPT, "%s: layout: %s is no number", name, key);
}

/* These too: NULL. */
static int get_object(const json_t *object, const char *key, char **out, const char *name,
                      struct err *err)
{
    const json_t *v = json_object_get(object, key);
    if (v != NULL && !json_is_object(v)) {
        return err_set(err, ERR_CORRUPT, "%s: layout: %s is no object", name, key);
    }
    *out = v != NULL ? json_dumps(v, FORM) : NULL;
    return 0;
}

static int parse_position(struct ckpt_facts *f, const json_t *root, const char *name,
                          struct err *err)
{
    TRY(get_u64(root, "step", INT64_MAX, &f->step, name, err));
    TRY(get_u64(root, "tokens", INT64_MAX, &f->tokens, name, err));
    TRY(get_u64(root, "position", INT64_MAX, &f->position, name, err));
    TRY(get_u64(root, "seed", UINT64_MAX, &f->seed, name, err));
    return get_u64(root, "corpus_tokens", INT64_MAX, &f->corpus_tokens, name, err);
}

static int parse_made_with(struct ckpt_facts *f, const json_t *root, const char *name,
                           struct err *err)
{
    const json_t *mesh = json_object_get(root, "mesh");
    TRY(get_u32(root, "sequence_length", &f->sequence_length, name, err));
    TRY(get_u32(root, "global_batch", &f->global_batch, name, err));
    if (json_object_get(root, "threads") != NULL) { /* older ones have it here */
        TRY(get_u32(root, "threads", &f->threads, name, err));
    }
    TRY(get_text(root, "precision", f->precision, sizeof f->precision, name, err));
    TRY(get_u32(mesh, "pipeline", &f->pipeline, name, err));
    TRY(get_u32(mesh, "expert", &f->expert, name, err));
    TRY(get_u32(mesh, "data", &f->data, name, err));
    if (json_object_get(mesh, "schedule") != NULL) { /* older ones have it not */
        uint32_t zero = 0;
        TRY(get_text(mesh, "schedule", f->schedule, sizeof f->schedule, name, err));
        TRY(get_u32(mesh, "zero", &zero, name, err));
        f->parted = zero > 0;
    }
    TRY(get_text(root, "model_sha256", f->model_sha256, sizeof f->model_sha256, name, err));
    return get_text(root, "spec_sha256", f->spec_sha256, sizeof f->spec_sha256, name, err);
}

static int parse_sources(struct ckpt_facts *f, const json_t *list, const char *name,
                         struct err *err)
{
    if (!json_is_array(list) || json_array_size(list) > DATA_SOURCES_MAX) {
        return err_set(err, ERR_CORRUPT, "%s: layout: sources is no list, or too long", name);
    }
    f->source_count = (uint32_t)json_array_size(list);
    for (uint32_t i = 0; i < f->source_count; i++) {
        const json_t *item = json_array_get(list, i);
        struct ckpt_source *s = &f->sources[i];
        TRY(get_u64(item, "tokens", INT64_MAX, &s->tokens, name, err));
        TRY(get_u64(item, "epoch", INT64_MAX, &s->epoch, name, err));
        TRY(get_u64(item, "shown", INT64_MAX, &s->shown, name, err));
    }
    return 0;
}

static int parse_story(struct ckpt_facts *f, const json_t *root, const char *name, struct err *err)
{
    const json_t *weights_only = json_object_get(root, "weights_only");
    const json_t *origin = json_object_get(root, "origin");
    if ((weights_only != NULL && !json_is_boolean(weights_only)) ||
        (origin != NULL && !json_is_string(origin))) {
        return err_set(err, ERR_CORRUPT, "%s: layout: weights_only or origin is malformed", name);
    }
    f->weights_only = json_is_true(weights_only);
    f->origin = mem_strdup(json_string_value(origin));
    TRY(get_real(root, "loss", &f->loss, name, err));
    TRY(get_real(root, "mtp_loss", &f->mtp_loss, name, err));
    TRY(get_real(root, "valid_loss", &f->valid_loss, name, err));
    if (json_object_get(root, "valid_step") != NULL) {
        TRY(get_u64(root, "valid_step", INT64_MAX, &f->valid_step, name, err));
    }
    if (json_object_get(root, "guard") != NULL) { /* older ones have it not */
        char *guard = NULL;
        TRY(get_object(root, "guard", &guard, name, err));
        int rc = guard_state_parse(&f->guard, guard, name, err);
        free(guard);
        TRY(rc);
    }
    if (json_object_get(root, "sources") != NULL) { /* so with these */
        TRY(parse_sources(f, json_object_get(root, "sources"), name, err));
    }
    TRY(get_object(root, "model", &f->model, name, err));
    return get_object(root, "run", &f->run, name, err);
}

int ckpt_facts_parse(struct ckpt_facts *f, const char *json, const char *name, struct err *err)
{
    *f = (struct ckpt_facts){0};
    json_t *root = json_loads(json, JSON_REJECT_DUPLICATES, NULL);
    uint64_t format = 0;
    int rc;
    TRY_GOTO(get_u64(root, "format", INT64_MAX, &format, name, err), out);
    if (format != 1) {
        rc = err_set(err, ERR_CORRUPT,
                     "%s: format %llu of the trainer's checkpoints, only 1 is known", name,
                     (unsigned long long)format);
        goto out;
    }
    TRY_GOTO(parse_position(f, root, name, err), out);
    TRY_GOTO(parse_made_with(f, root, name, err), out);
    rc = parse_story(f, root, name, err);
out:
    json_decref(root);
    if (rc != 0) {
        ckpt_facts_fini(f);
    }
    return rc;
}

void ckpt_facts_warn(const struct ckpt_facts *was, const struct ckpt_facts *is)
{
    if (was->seed != is->seed || was->corpus_tokens != is->corpus_tokens ||
        was->sequence_length != is->sequence_length) {
        log_warn("the data order differs from the checkpoint's run: seed %" PRIu64 " -> %" PRIu64
                 ", corpus %" PRIu64 " -> %" PRIu64 " tokens, sequence_length %u -> %u",
                 was->seed, is->seed, was->corpus_tokens, is->corpus_tokens, was->sequence_length,
                 is->sequence_length);
    }
    if (strcmp(was->precision, is->precision) != 0) {
        log_warn("the checkpoint was made in %s, this run is in %s", was->precision, is->precision);
    }
    if (was->pipeline != is->pipeline || was->expert != is->expert || was->data != is->data ||
        (was->schedule[0] != 0 && strcmp(was->schedule, is->schedule) != 0)) {
        log_warn(
            "the checkpoint was made on pipeline %u x expert %u x data %u, this run is on %u x "
            "%u x %u: its sums are made in another order, it repeats the other one within "
            "rounding, not to the bit",
            was->pipeline, was->expert, was->data, is->pipeline, is->expert, is->data);
    }
    if (strcmp(was->model_sha256, is->model_sha256) != 0) {
        log_warn("the checkpoint was made with another model file of the same shapes");
    }
}
