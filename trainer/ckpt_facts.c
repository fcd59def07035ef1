#include "trainer/ckpt_facts.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/manifest.h"

static const char *const precisions[] = {
    [PRECISION_FP32] = "fp32", [PRECISION_BF16] = "bf16", [PRECISION_FP8] = "fp8"};

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
        .threads = threads,
    };
    snprintf(f->precision, sizeof f->precision, "%s", precisions[spec->train.precision]);
    char *text = model_config_to_json(model);
    manifest_digest_text(text, strlen(text), f->model_sha256);
    free(text);
    /* A worker keeps the model's file in a folder of its own, so its path differs from node to
     * node; its content is hashed above.
     */
    struct jobspec same = *spec;
    same.train.model = (char *)"";
    text = jobspec_to_json(&same);
    manifest_digest_text(text, strlen(text), f->spec_sha256);
    free(text);
}

char *ckpt_facts_encode(const struct ckpt_facts *f)
{
    json_t *root = json_pack(
        "{s:i,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:s,s:{s:I,s:I,s:I},s:s,s:s}", "format", 1, "step",
        (json_int_t)f->step, "tokens", (json_int_t)f->tokens, "position", (json_int_t)f->position,
        "seed", (json_int_t)f->seed, "corpus_tokens", (json_int_t)f->corpus_tokens,
        "sequence_length", (json_int_t)f->sequence_length, "global_batch",
        (json_int_t)f->global_batch, "threads", (json_int_t)f->threads, "precision", f->precision,
        "mesh", "pipeline", (json_int_t)f->pipeline, "expert", (json_int_t)f->expert, "data",
        (json_int_t)f->data, "model_sha256", f->model_sha256, "spec_sha256", f->spec_sha256);
    char *text = json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(root);
    return text;
}

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

int ckpt_facts_parse(struct ckpt_facts *f, const char *json, const char *name, struct err *err)
{
    *f = (struct ckpt_facts){0};
    json_t *root = json_loads(json, JSON_REJECT_DUPLICATES, NULL);
    const json_t *mesh = json_object_get(root, "mesh");
    uint64_t format;
    int rc;
    TRY_GOTO(get_u64(root, "format", INT64_MAX, &format, name, err), out);
    if (format != 1) {
        rc = err_set(err, ERR_CORRUPT,
                     "%s: format %llu of the trainer's checkpoints, only 1 is known", name,
                     (unsigned long long)format);
        goto out;
    }
    TRY_GOTO(get_u64(root, "step", INT64_MAX, &f->step, name, err), out);
    TRY_GOTO(get_u64(root, "tokens", INT64_MAX, &f->tokens, name, err), out);
    TRY_GOTO(get_u64(root, "position", INT64_MAX, &f->position, name, err), out);
    TRY_GOTO(get_u64(root, "seed", UINT64_MAX, &f->seed, name, err), out);
    TRY_GOTO(get_u64(root, "corpus_tokens", INT64_MAX, &f->corpus_tokens, name, err), out);
    TRY_GOTO(get_u32(root, "sequence_length", &f->sequence_length, name, err), out);
    TRY_GOTO(get_u32(root, "global_batch", &f->global_batch, name, err), out);
    TRY_GOTO(get_u32(root, "threads", &f->threads, name, err), out);
    TRY_GOTO(get_text(root, "precision", f->precision, sizeof f->precision, name, err), out);
    TRY_GOTO(get_u32(mesh, "pipeline", &f->pipeline, name, err), out);
    TRY_GOTO(get_u32(mesh, "expert", &f->expert, name, err), out);
    TRY_GOTO(get_u32(mesh, "data", &f->data, name, err), out);
    TRY_GOTO(get_text(root, "model_sha256", f->model_sha256, sizeof f->model_sha256, name, err),
             out);
    rc = get_text(root, "spec_sha256", f->spec_sha256, sizeof f->spec_sha256, name, err);
out:
    json_decref(root);
    return rc;
}
