#include "trainer/hf_export.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/file.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "proto/manifest.h"
#include "trainer/ckpt_facts.h"
#include "trainer/hf_card.h"
#include "trainer/hf_index.h"
#include "trainer/hf_metrics.h"
#include "trainer/hf_tokenizer.h"
#include "trainer/hf_write.h"
#include "trainer/out_folder.h"
#include "trainer/tokenizer_bytes.h"

#define CONFIG_BYTES_MAX (1u << 20)
#define FACTS_BYTES_MAX  (64u << 20)

struct export
{
    const struct export_options *o;
    struct manifest manifest;
    struct ckpt_facts facts;
    struct model_config config;
    struct tensor_list tensors;
    struct hf_plan plan;
    struct hf_tokenizer tokenizer;
    struct out_folder out;
    json_t *run, *job, *metrics; /* owned; or NULL */
};

/* ---- what is exported */

static void warn_of_config(const struct export *e)
{
    char sha256[65];
    char *canonical = model_config_to_json(&e->config);
    manifest_digest_text(canonical, strlen(canonical), sha256);
    if (strcmp(sha256, e->facts.model_sha256) != 0) {
        log_warn("%s is not the configuration that the checkpoint was made with", e->o->config);
    }
    free(canonical);
}

static int load_config(struct export *e, struct err *err)
{
    const char *dir = e->o->ckpt_dir;
    struct buf text = {0};
    int rc;
    if (e->o->config != NULL) {
        rc = file_read(e->o->config, CONFIG_BYTES_MAX, &text, err);
        if (rc == 0) {
            rc = model_config_parse(&e->config, buf_cstr(&text), text.len, e->o->config, err);
        }
        buf_fini(&text);
        if (rc == 0) {
            warn_of_config(e);
        }
        return rc;
    }
    if (e->facts.model == NULL) {
        return err_set(err, ERR_CONFIG,
                       "%s does not hold its model's configuration, it is older than that (give "
                       "--model with the run's config.json)",
                       dir);
    }
    return model_config_parse(&e->config, e->facts.model, strlen(e->facts.model), dir, err);
}

static int load_checkpoint(struct export *e, struct err *err)
{
    const char *dir = e->o->ckpt_dir;
    int rc = manifest_read(&e->manifest, dir, err);
    if (rc == ERR_NOT_FOUND) {
        rc = err_set(err, ERR_CORRUPT,
                     "%s has no " MANIFEST_FILE ": it was never committed, or it is no checkpoint",
                     dir);
    }
    TRY(rc);
    TRY(ckpt_facts_parse(&e->facts, e->manifest.layout, dir, err));
    TRY(load_config(e, err));
    e->run = e->facts.run != NULL ? json_loads(e->facts.run, 0, NULL) : NULL;
    return 0;
}

/* ---- what is told of the run */

static int load_job(struct export *e, struct err *err)
{
    const char *path = e->o->facts;
    struct buf text = {0};
    json_error_t where;
    if (path == NULL) {
        return 0;
    }
    TRY(file_read(path, FACTS_BYTES_MAX, &text, err));
    e->job = json_loadb(buf_cstr(&text), text.len, JSON_REJECT_DUPLICATES, &where);
    buf_fini(&text);
    if (e->job == NULL) {
        return err_set(err, ERR_CONFIG, "%s:%d: not JSON: %s", path, where.line, where.text);
    }
    const char *schema = json_string_value(json_object_get(e->job, "schema"));
    if (schema == NULL || strcmp(schema, "ds/job/v1") != 0) {
        return err_set(err, ERR_CONFIG,
                       "%s: its schema is not ds/job/v1 (give what `dsctl job show ID -o json` "
                       "prints)",
                       path);
    }
    json_int_t id = json_integer_value(json_object_get(e->job, "id"));
    if (id < 0 || (uint64_t)id != e->manifest.job) {
        return err_set(err, ERR_CONFIG,
                       "%s is about job %" JSON_INTEGER_FORMAT
                       ", the checkpoint is of job %" PRIu64,
                       path, id, e->manifest.job);
    }
    return 0;
}

/* A run without a coordinator keeps its checkpoints at OUT/checkpoints/<epoch>/<step>. */
static int load_metrics(struct export *e, struct err *err)
{
    const json_t *list = json_object_get(e->job, "metrics");
    struct err why = {0};
    if (e->o->metrics != NULL) {
        return hf_metrics_read(&e->metrics, e->o->metrics, e->facts.step, err);
    }
    if (list != NULL) {
        e->metrics = hf_metrics_pick(list, e->facts.step);
        return 0;
    }
    if (e->manifest.job == 0 && !e->facts.weights_only) {
        char *path = mem_printf("%s/../../../metrics.jsonl", e->o->ckpt_dir);
        int rc = hf_metrics_read(&e->metrics, path, e->facts.step, &why);
        free(path);
        return rc == 0 || rc == ERR_NOT_FOUND ? 0 : err_set(err, rc, "%s", why.text);
    }
    return 0;
}

/* What ends a text is the tokenizer's to say: a config.json written before there was one has the
 * published default. Weights from elsewhere came with one that knows. */
static void take_ends(struct export *e)
{
    struct tokenizer *t = NULL;
    struct err why = {0};
    if (e->tokenizer.kind == HF_TOKENIZER_BYTES) {
        e->config.bos_token_id = -1;
        e->config.eos_token_id = TOKENIZER_BYTES_EOD;
    } else if (e->tokenizer.kind == HF_TOKENIZER_FILES && e->facts.origin == NULL &&
               hf_tokenizer_open(&e->tokenizer, &t, &why) == 0) {
        e->config.eos_token_id = t->eod >= 0 ? t->eod : e->config.eos_token_id;
        tokenizer_close(t);
    }
}

static int choose_tokenizer(struct export *e, struct err *err)
{
    TRY(hf_tokenizer_of(&e->tokenizer, e->o->tokenizer, e->o->ckpt_dir, &e->facts, &e->config,
                        err));
    if (e->tokenizer.kind == HF_TOKENIZER_NONE && e->o->tokenizer == NULL) {
        log_warn("no tokenizer is known for this model: none is written (--tokenizer names one)");
    }
    take_ends(e);
    return 0;
}

/* ---- the small files */

static int write_text(const struct export *e, const char *name, const struct buf *text,
                      struct err *err)
{
    char *path = mem_printf("%s/%s", e->out.tmp, name);
    int rc = file_write_durable(path, text->data, text->len, 0666, err);
    free(path);
    return rc;
}

static void put_config(struct buf *out, const struct export *e)
{
    static const char end[] = "\n}\n";
    char *json = model_config_to_json(&e->config);
    buf_append(out, json, strlen(json) - strlen(end));
    free(json);
    buf_printf(out, ",\n  \"torch_dtype\": \"%s\"",
               e->o->dtype == EXPORT_FP32 ? "float32" : "bfloat16");
    if (e->o->dtype == EXPORT_FP8) {
        buf_append_str(out, ",\n  \"quantization_config\": {\"quant_method\": \"fp8\", \"fmt\": "
                            "\"e4m3\", \"activation_scheme\": \"dynamic\", "
                            "\"weight_block_size\": [128, 128]}");
    }
    buf_append_str(out, end);
}

static void put_generation_config(struct buf *out, const struct export *e)
{
    buf_append_str(out, "{\n  \"_from_model_config\": true");
    if (e->config.bos_token_id >= 0) {
        buf_printf(out, ",\n  \"bos_token_id\": %" PRId64, e->config.bos_token_id);
    }
    if (e->config.eos_token_id >= 0) {
        buf_printf(out, ",\n  \"eos_token_id\": %" PRId64, e->config.eos_token_id);
    }
    buf_append_str(out, "\n}\n");
}

static void put_card(struct buf *out, const struct export *e)
{
    const struct hf_card card = {.facts = &e->facts,
                                 .config = &e->config,
                                 .plan = &e->plan,
                                 .dtype = e->o->dtype,
                                 .tokenizer = e->tokenizer.kind,
                                 .run = e->run,
                                 .job = e->job,
                                 .metrics = e->metrics};
    hf_card_write(out, &card);
}

static void put_index(struct buf *out, const struct export *e)
{
    hf_plan_index(&e->plan, out);
}

static int write_small_files(const struct export *e, struct err *err)
{
    static const struct {
        const char *name;
        void (*put)(struct buf *out, const struct export *e);
    } files[] = {{"config.json", put_config},
                 {"generation_config.json", put_generation_config},
                 {HF_INDEX_FILE, put_index},
                 {"README.md", put_card}};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct buf text = {0};
        files[i].put(&text, e);
        int rc = write_text(e, files[i].name, &text, err);
        buf_fini(&text);
        TRY(rc);
    }
    return hf_tokenizer_write(&e->tokenizer, e->out.tmp, &e->config, err);
}

/* ---- */

static int run(struct export *e, struct err *err)
{
    TRY(load_checkpoint(e, err));
    TRY(load_job(e, err));
    TRY(load_metrics(e, err));
    TRY(choose_tokenizer(e, err));
    TRY(out_folder_create(&e->out, e->o->hf_dir, err));
    tensor_list_init(&e->tensors, &e->config);
    hf_plan_init(&e->plan, &e->tensors, &e->config, e->o->dtype, e->o->shard_bytes);
    TRY(write_small_files(e, err)); /* first: what is wrong with them shows at once */
    TRY(hf_write_tensors(&e->manifest, e->o->ckpt_dir, e->o->ema, &e->tensors, &e->plan, &e->out,
                         err));
    return out_folder_commit(&e->out, err);
}

int hf_export(const struct export_options *options, struct export_result *result, struct err *err)
{
    struct export e = {.o = options};
    int rc = run(&e, err);
    *result = (struct export_result){e.plan.count, e.plan.data_bytes, e.plan.file_count};
    out_folder_close(&e.out);
    hf_tokenizer_fini(&e.tokenizer);
    hf_plan_fini(&e.plan);
    tensor_list_fini(&e.tensors);
    json_decref(e.run);
    json_decref(e.job);
    json_decref(e.metrics);
    ckpt_facts_fini(&e.facts);
    manifest_fini(&e.manifest);
    return rc;
}
