#include "trainer/hf_import.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/file.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "proto/manifest.h"
#include "trainer/ckpt_facts.h"
#include "trainer/ckpt_save.h"
#include "trainer/hf_folder.h"
#include "trainer/hf_source.h"
#include "trainer/out_folder.h"
#include "trainer/progress.h"
#include "trainer/rng.h"
#include "trainer/shard_file.h"
#include "trainer/tensor_list.h"

#define BAND_BYTES     ((uint64_t)16 << 20)
#define COPY_BYTES_MAX (256u << 20)

struct import {
    const struct import_options *o;
    struct hf_folder folder;
    struct tensor_list tensors;
    bool *fresh; /* owned; of each tensor: made here, not read */
    struct out_folder out;
    char *layout; /* owned */
    float *band;  /* owned; room for one */
    uint64_t band_floats;
    uint64_t done_bytes, all_bytes;
};

/* ---- what is read and what is made */

static bool is_mtp(const struct import *m, int32_t layer)
{
    return layer >= 0 && (uint32_t)layer >= m->folder.config.num_hidden_layers;
}

/* Every tensor of the model is in the folder, but for whole MTP layers. */
static int find_tensors(struct import *m, struct err *err)
{
    uint32_t layers =
        m->folder.config.num_hidden_layers + m->folder.config.num_nextn_predict_layers;
    const char **missing = mem_alloc_array(layers + 1, sizeof *missing);
    size_t *found = mem_alloc_array(layers + 1, sizeof *found);
    int rc = 0;
    m->fresh = mem_alloc_array(m->tensors.count, sizeof *m->fresh);
    for (size_t i = 0; i < m->tensors.count && rc == 0; i++) {
        const struct tensor *t = &m->tensors.item[i];
        struct hf_source s;
        size_t layer = t->layer >= 0 ? (size_t)t->layer : layers;
        rc = hf_source_open(&s, &m->folder, t, err);
        m->fresh[i] = s.values == NULL;
        found[layer] += s.values != NULL;
        missing[layer] = m->fresh[i] && missing[layer] == NULL ? t->name : missing[layer];
        hf_source_close(&s);
    }
    for (size_t l = 0; l <= layers && rc == 0; l++) {
        bool is_main = l == layers || !is_mtp(m, (int32_t)l);
        if (missing[l] != NULL && (is_main || found[l] > 0)) {
            rc = err_set(err, ERR_CORRUPT, "%s: tensor %s is in none of its %zu files",
                         m->o->hf_dir, missing[l], m->folder.file_count);
        } else if (missing[l] != NULL) {
            log_info("%s has no weights of MTP layer %zu: initialised from seed %" PRIu64
                     ", std %g (--mtp 0 leaves it out)",
                     m->o->hf_dir, l, m->o->seed, m->o->init_std);
        }
    }
    free(missing);
    free(found);
    return rc;
}

/* Rows of a tensor; of a vector, which counts as one row, elements. */
static int read_band(struct import *m, const struct tensor *t, const struct hf_source *s,
                     uint32_t row, uint32_t count, struct err *err)
{
    if (s->values != NULL) {
        return hf_source_read(s, row, count, m->band, err);
    }
    uint64_t n = t->is_vector ? t->rows : (uint64_t)count * t->cols;
    if (t->kind == TENSOR_NORM || t->kind == TENSOR_BIAS) {
        for (uint64_t i = 0; i < n; i++) {
            m->band[i] = t->kind == TENSOR_NORM ? 1.0f : 0.0f;
        }
    } else {
        rng_normal(m->o->seed, rng_stream(t->name), (uint64_t)row * t->cols, n, m->o->init_std,
                   m->band);
    }
    return 0;
}

static uint32_t band_rows(const struct tensor *t)
{
    uint64_t row = (uint64_t)t->cols * sizeof(float);
    return t->is_vector || row >= BAND_BYTES ? 1 : (uint32_t)(BAND_BYTES / row);
}

/* Calls take for each band, in order. */
static int each_band(struct import *m, const struct tensor *t, const struct hf_source *s,
                     int (*take)(void *ctx, const float *band, uint64_t n, struct err *err),
                     void *ctx, struct err *err)
{
    uint32_t rows = t->is_vector ? 1 : t->rows;
    for (uint32_t row = 0; row < rows;) {
        uint32_t count = band_rows(t) < rows - row ? band_rows(t) : rows - row;
        TRY(out_folder_interrupted(&m->out, err));
        TRY(read_band(m, t, s, row, count, err));
        TRY(take(ctx, m->band, t->is_vector ? t->rows : (uint64_t)count * t->cols, err));
        row += count;
    }
    return 0;
}

/* ---- what the folder has and the model has not */

static bool has_suffix(const char *text, const char *suffix)
{
    size_t a = strlen(text);
    size_t b = strlen(suffix);
    return a >= b && strcmp(text + a - b, suffix) == 0;
}

/* The layer in model.layers.<n>., or -1. */
static int32_t layer_of(const char *name)
{
    unsigned layer;
    int end = 0;
    return sscanf(name, "model.layers.%9u.%n", &layer, &end) == 1 && end > 0 ? (int32_t)layer : -1;
}

struct compare {
    struct import *m;
    const struct hf_source *other;
    float *band; /* owned; of the other */
    uint64_t at;
    bool differs;
};

static int compare_band(void *ctx, const float *band, uint64_t n, struct err *err)
{
    struct compare *c = ctx;
    uint32_t row = (uint32_t)(c->at / c->other->cols);
    TRY(hf_source_read(c->other, row, (uint32_t)(n / c->other->cols), c->band, err));
    c->differs = c->differs || memcmp(band, c->band, n * sizeof *band) != 0;
    c->at += n;
    return 0;
}

/* Released weights repeat embedding and head in each MTP layer, and some the embedding as the head
 * of a tied model. Here they are one tensor. */
static int check_copy(struct import *m, const char *copy, const char *original, struct err *err)
{
    const struct tensor *t = tensor_list_find(&m->tensors, original);
    struct hf_source here = {0};
    struct hf_source there = {0};
    struct compare c = {.m = m, .other = &there};
    int rc;
    TRY_GOTO(hf_source_open(&here, &m->folder, t, err), out);
    TRY_GOTO(hf_source_open_as(&there, &m->folder, copy, t, err), out);
    c.band = mem_alloc_array(m->band_floats, sizeof *c.band);
    TRY_GOTO(each_band(m, t, &here, compare_band, &c, err), out);
    if (c.differs) {
        log_warn("%s: %s differs from %s: the model has one for both, and it is the latter",
                 there.values->file->path, copy, original);
    }
out:
    hf_source_close(&here);
    hf_source_close(&there);
    free(c.band);
    return rc;
}

static const char *head_name(const struct import *m)
{
    return m->folder.config.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
}

static int check_unused(struct import *m, const struct hf_tensor *t, bool *left_out,
                        struct err *err)
{
    const char *name = t->tensor->name;
    int32_t layer = layer_of(name);
    if (has_suffix(name, ".rotary_emb.inv_freq")) {
        return 0; /* computed from config.json */
    }
    if (is_mtp(m, layer) && !tensor_list_find(&m->tensors, name)) {
        uint32_t last =
            m->folder.config.num_hidden_layers + m->folder.config.num_nextn_predict_layers;
        if ((uint32_t)layer >= last) {
            *left_out = true;
            return 0;
        }
        if (has_suffix(name, ".embed_tokens.weight")) {
            return check_copy(m, name, "model.embed_tokens.weight", err);
        }
        if (has_suffix(name, ".shared_head.head.weight")) {
            return check_copy(m, name, head_name(m), err);
        }
    }
    if (strcmp(name, "lm_head.weight") == 0) {
        return check_copy(m, name, head_name(m), err);
    }
    return err_set(err, ERR_CORRUPT,
                   "%s: tensor %s has no place in the model that config.json says", t->file->path,
                   name);
}

static int check_all_used(struct import *m, struct err *err)
{
    bool left_out = false;
    for (size_t i = 0; i < m->folder.count; i++) {
        if (!m->folder.tensor[i].used) {
            TRY(check_unused(m, &m->folder.tensor[i], &left_out, err));
        }
    }
    if (left_out) {
        log_info("left out: the folder's MTP layers beyond the %u of this model",
                 m->folder.config.num_nextn_predict_layers);
    }
    return 0;
}

/* ---- writing */

static uint64_t bytes_of(const struct tensor *t)
{
    return tensor_elements(t) * sizeof(float);
}

/* The first tensor of the shard after the one that begins at `first`. */
static size_t shard_end(const struct import *m, size_t first)
{
    uint64_t bytes = 0;
    size_t i = first;
    while (i < m->tensors.count) {
        bytes += bytes_of(&m->tensors.item[i]);
        if (bytes > m->o->shard_bytes && i > first) {
            break;
        }
        i++;
    }
    return i;
}

static void build_header(const struct import *m, size_t first, size_t end, struct buf *header)
{
    struct safetensors_item *items = mem_alloc_array(end - first, sizeof *items);
    for (size_t i = first; i < end; i++) {
        const struct tensor *t = &m->tensors.item[i];
        items[i - first] = (struct safetensors_item){t->name, t->rows, t->cols, t->is_vector, NULL};
    }
    const struct safetensors_metadata metadata[] = {{"format", "dstrain"}, {"layout", m->layout}};
    safetensors_write_header(header, items, end - first, metadata, 2);
    free(items);
}

struct writing {
    struct import *m;
    struct shard_file *file;
};

static int write_band(void *ctx, const float *band, uint64_t n, struct err *err)
{
    struct writing *w = ctx;
    w->m->done_bytes += n * sizeof *band;
    progress_bytes(w->m->done_bytes, w->m->all_bytes);
    return shard_file_write(w->file, band, n * sizeof *band, err);
}

static int write_tensors(struct import *m, size_t first, size_t end, struct shard_file *file,
                         struct err *err)
{
    struct writing w = {m, file};
    for (size_t i = first; i < end; i++) {
        const struct tensor *t = &m->tensors.item[i];
        struct hf_source s;
        int rc = hf_source_open(&s, &m->folder, t, err);
        rc = rc == 0 ? each_band(m, t, &s, write_band, &w, err) : rc;
        hf_source_close(&s);
        TRY(rc);
    }
    return 0;
}

static int write_shard(struct import *m, size_t first, size_t end, struct manifest_shard *shard,
                       struct err *err)
{
    struct shard_file file = {0};
    struct buf header = {0};
    uint64_t bytes = 0;
    char *path = mem_printf("%s/%s", m->out.tmp, shard->file);
    int rc;
    build_header(m, first, end, &header);
    for (size_t i = first; i < end; i++) {
        bytes += bytes_of(&m->tensors.item[i]);
    }
    TRY_GOTO(shard_file_create(&file, path, header.len + bytes, err), out);
    TRY_GOTO(shard_file_write(&file, header.data, header.len, err), out);
    TRY_GOTO(write_tensors(m, first, end, &file, err), out);
    rc = shard_file_commit(&file, shard->xxh3, shard->sha256, err);
    shard->bytes = file.bytes;
out:
    shard_file_close(&file);
    buf_fini(&header);
    free(path);
    return rc;
}

static int write_shards(struct import *m, struct manifest *manifest, struct import_result *result,
                        struct err *err)
{
    for (size_t first = 0; first < m->tensors.count; first = shard_end(m, first)) {
        manifest->world_size++;
    }
    manifest->shards = mem_alloc_array(manifest->world_size, sizeof *manifest->shards);
    size_t first = 0;
    for (uint32_t i = 0; i < manifest->world_size; i++) {
        struct manifest_shard *shard = &manifest->shards[i];
        size_t end = shard_end(m, first);
        shard->rank = i;
        snprintf(shard->file, sizeof shard->file, CKPT_SHARD_NAME, i, manifest->world_size);
        TRY(write_shard(m, first, end, shard, err));
        result->bytes += shard->bytes;
        first = end;
    }
    result->shards = manifest->world_size;
    result->tensors = m->tensors.count;
    return 0;
}

/* ---- the small files */

static int write_text(const struct import *m, const char *name, const void *text, size_t len,
                      struct err *err)
{
    char *path = mem_printf("%s/%s", m->out.tmp, name);
    int rc = file_write_durable(path, text, len, 0666, err);
    free(path);
    return rc;
}

/* Those of the tokenizer, as they are: an export of what is trained from here takes them along. */
static int copy_tokenizer(const struct import *m, struct err *err)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json",
                                        "special_tokens_map.json", "chat_template.jinja"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *path = mem_printf("%s/%s", m->o->hf_dir, names[i]);
        struct buf text = {0};
        struct err why = {0};
        int rc = file_read(path, COPY_BYTES_MAX, &text, &why);
        if (rc == 0) {
            rc = write_text(m, names[i], text.data, text.len, err);
        } else {
            rc = rc == ERR_NOT_FOUND ? 0 : err_set(err, rc, "%s", why.text);
        }
        buf_fini(&text);
        free(path);
        TRY(rc);
    }
    return 0;
}

static int write_small_files(const struct import *m, struct manifest *manifest, struct err *err)
{
    char *config = model_config_to_json(&m->folder.config);
    int rc = write_text(m, "config.json", config, strlen(config), err);
    free(config);
    TRY(rc);
    TRY(copy_tokenizer(m, err));
    struct buf text = {0};
    TRY(manifest_layout(m->layout, &manifest->layout, err));
    manifest_encode(manifest, &text);
    rc = manifest_publish(m->out.tmp, buf_cstr(&text), text.len, err);
    buf_fini(&text);
    return rc;
}

/* ---- */

static void make_layout(struct import *m)
{
    struct ckpt_facts facts;
    char absolute[PATH_MAX];
    const char *dir = realpath(m->o->hf_dir, absolute) != NULL ? absolute : m->o->hf_dir;
    char *origin = mem_printf("the Hugging Face folder %s", dir);
    ckpt_facts_init_weights(&facts, &m->folder.config, m->o->seed, origin);
    m->layout = ckpt_facts_encode(&facts);
    ckpt_facts_fini(&facts);
    free(origin);
}

static void allocate_band(struct import *m)
{
    for (size_t i = 0; i < m->tensors.count; i++) {
        const struct tensor *t = &m->tensors.item[i];
        uint64_t n = t->is_vector ? t->rows : (uint64_t)band_rows(t) * t->cols;
        m->band_floats = n > m->band_floats ? n : m->band_floats;
        m->all_bytes += bytes_of(t);
    }
    m->band = mem_alloc_array(m->band_floats, sizeof *m->band);
}

static int import_into(struct import *m, struct import_result *result, struct err *err)
{
    struct manifest manifest = {0};
    TRY(out_folder_create(&m->out, m->o->ckpt_dir, err));
    TRY(find_tensors(m, err));
    allocate_band(m);
    TRY(check_all_used(m, err));
    make_layout(m);
    int rc = write_shards(m, &manifest, result, err);
    progress_clear();
    rc = rc == 0 ? write_small_files(m, &manifest, err) : rc;
    manifest_fini(&manifest);
    return rc == 0 ? out_folder_commit(&m->out, err) : rc;
}

static int skip_band(void *ctx, const float *band, uint64_t n, struct err *err)
{
    (void)ctx, (void)band, (void)n, (void)err;
    return 0;
}

static int check_values(struct import *m, struct err *err)
{
    TRY(find_tensors(m, err));
    allocate_band(m);
    TRY(check_all_used(m, err));
    for (size_t i = 0; i < m->tensors.count; i++) {
        struct hf_source s;
        int rc = hf_source_open(&s, &m->folder, &m->tensors.item[i], err);
        rc = rc == 0 ? each_band(m, &m->tensors.item[i], &s, skip_band, NULL, err) : rc;
        hf_source_close(&s);
        TRY(rc);
    }
    return 0;
}

static void close_import(struct import *m)
{
    out_folder_close(&m->out);
    tensor_list_fini(&m->tensors);
    hf_folder_close(&m->folder);
    free(m->fresh);
    free(m->layout);
    free(m->band);
}

int hf_check(const char *hf_dir, size_t *tensors, struct err *err)
{
    const struct import_options options = {.hf_dir = hf_dir, .seed = 1, .init_std = 0.006};
    struct import m = {.o = &options};
    TRY(hf_folder_open(&m.folder, hf_dir, err));
    tensor_list_init(&m.tensors, &m.folder.config);
    int rc = check_values(&m, err);
    *tensors = m.folder.count;
    close_import(&m);
    return rc;
}

int hf_import(const struct import_options *options, struct import_result *result, struct err *err)
{
    struct import m = {.o = options};
    *result = (struct import_result){0};
    TRY(hf_folder_open(&m.folder, options->hf_dir, err));
    if (options->mtp_layers >= 0) {
        m.folder.config.num_nextn_predict_layers = (uint32_t)options->mtp_layers;
    }
    tensor_list_init(&m.tensors, &m.folder.config);
    int rc = import_into(&m, result, err);
    close_import(&m);
    return rc;
}
