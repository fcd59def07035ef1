/* The files are those that the index names; without an index model.safetensors, or the only
 * .safetensors file that there is. The index must be right: each tensor is in the file that it says
 * and in no other, and no file has a tensor that it does not name. */
#include "trainer/hf_folder.h"

#include <dirent.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "lib/buf.h"
#include "lib/file.h"
#include "lib/mem.h"
#include "trainer/hf_index.h"

#define CONFIG_BYTES_MAX (1u << 20)
#define BLOCK            128
#define BLOCK_MAX        65536
#define MTP_MAX          16

/* ---- config.json */

/* Of a folder whose weights are not all plain numbers. Only the FP8 of the published weights is
 * known. */
static int read_quantisation(struct hf_folder *f, const json_t *q, const char *path,
                             struct err *err)
{
    if (q == NULL || json_is_null(q)) {
        return 0;
    }
    const char *method = json_string_value(json_object_get(q, "quant_method"));
    const char *format = json_string_value(json_object_get(q, "fmt"));
    if (method == NULL || strcmp(method, "fp8") != 0 ||
        (format != NULL && strcmp(format, "e4m3") != 0)) {
        return err_set(err, ERR_CONFIG,
                       "%s: quantization_config: quant_method '%s', fmt '%s' is not read (allowed: "
                       "fp8, e4m3)",
                       path, method != NULL ? method : "", format != NULL ? format : "");
    }
    const json_t *size = json_object_get(q, "weight_block_size");
    if (size == NULL) {
        return 0;
    }
    json_int_t rows = json_integer_value(json_array_get(size, 0));
    json_int_t cols = json_integer_value(json_array_get(size, 1));
    if (json_array_size(size) != 2 || rows < 1 || cols < 1 || rows > BLOCK_MAX ||
        cols > BLOCK_MAX) {
        return err_set(err, ERR_CONFIG,
                       "%s: quantization_config: weight_block_size is no pair of sizes (allowed: "
                       "such as [128, 128])",
                       path);
    }
    f->block_rows = (uint32_t)rows;
    f->block_cols = (uint32_t)cols;
    return 0;
}

static int read_config(struct hf_folder *f, struct err *err)
{
    char path[PATH_MAX + 16];
    struct buf text = {0};
    snprintf(path, sizeof path, "%s/config.json", f->dir);
    f->block_rows = f->block_cols = BLOCK;
    int rc = file_read(path, CONFIG_BYTES_MAX, &text, err);
    if (rc == 0) {
        rc = model_config_parse(&f->config, buf_cstr(&text), text.len, path, err);
    }
    if (rc == 0) {
        json_t *root = json_loadb(buf_cstr(&text), text.len, 0, NULL);
        f->says_mtp = json_object_get(root, "num_nextn_predict_layers") != NULL;
        rc = read_quantisation(f, json_object_get(root, "quantization_config"), path, err);
        json_decref(root);
    }
    buf_fini(&text);
    return rc;
}

/* ---- which files */

static bool is_weights(const char *name)
{
    const char *dot = strrchr(name, '.');
    return name[0] != '.' && dot != NULL && strcmp(dot, ".safetensors") == 0;
}

/* The one file of a folder without an index. Caller frees. */
static int find_single(const char *dir, char **name, struct err *err)
{
    DIR *d = opendir(dir);
    size_t count = 0;
    *name = NULL;
    if (d == NULL) {
        return err_set_errno(err, "cannot open folder %s", dir);
    }
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        if (is_weights(e->d_name)) {
            bool usual = strcmp(e->d_name, "model.safetensors") == 0;
            count = usual ? 1 : count + 1;
            free(*name);
            *name = mem_strdup(e->d_name);
            if (usual) {
                break;
            }
        }
    }
    closedir(d);
    if (count == 1) {
        return 0;
    }
    free(*name);
    *name = NULL;
    return count == 0 ? err_set(err, ERR_NOT_FOUND,
                                "%s has neither " HF_INDEX_FILE " nor a .safetensors file (weights "
                                "in other formats are not read)",
                                dir)
                      : err_set(err, ERR_CORRUPT,
                                "%s has %zu .safetensors files and no " HF_INDEX_FILE, dir, count);
}

static int open_file(struct hf_folder *f, const char *name, const char *index, struct err *err)
{
    char path[PATH_MAX + 256];
    snprintf(path, sizeof path, "%s/%s", f->dir, name);
    struct err why = {0};
    int rc = safetensors_open(&f->file[f->file_count], path, &why);
    f->file_count += rc == 0;
    if (rc == ERR_NOT_FOUND && index != NULL) {
        return err_set(err, ERR_CORRUPT, "%s names %s, which is not there", index, path);
    }
    return rc == 0 ? 0 : err_set(err, rc, "%s", why.text);
}

/* A folder may have more files than a process may open by default. */
static void allow_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* ---- which tensors */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct hf_tensor *)a)->tensor->name,
                  ((const struct hf_tensor *)b)->tensor->name);
}

static int collect(struct hf_folder *f, struct err *err)
{
    size_t n = 0;
    for (size_t i = 0; i < f->file_count; i++) {
        n += f->file[i].count;
    }
    f->tensor = mem_alloc_array(n, sizeof *f->tensor);
    for (size_t i = 0; i < f->file_count; i++) {
        for (size_t k = 0; k < f->file[i].count; k++) {
            f->tensor[f->count++] = (struct hf_tensor){&f->file[i], &f->file[i].tensors[k], false};
        }
    }
    qsort(f->tensor, f->count, sizeof *f->tensor, by_name);
    for (size_t i = 1; i < f->count; i++) {
        if (by_name(&f->tensor[i - 1], &f->tensor[i]) == 0) {
            return err_set(err, ERR_CORRUPT, "tensor %s is there twice: in %s and in %s",
                           f->tensor[i].tensor->name, f->tensor[i - 1].file->path,
                           f->tensor[i].file->path);
        }
    }
    return 0;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* Both lists are sorted, and have each name once. */
static int check_index(const struct hf_folder *f, const struct hf_index *x, const char *path,
                       struct err *err)
{
    for (size_t i = 0; i < f->count || i < x->count; i++) {
        const struct hf_tensor *t = i < f->count ? &f->tensor[i] : NULL;
        const struct hf_index_entry *e = i < x->count ? &x->entry[i] : NULL;
        int order = t == NULL ? 1 : e == NULL ? -1 : strcmp(t->tensor->name, e->tensor);
        if (order < 0) {
            return err_set(err, ERR_CORRUPT, "%s has tensor %s, which %s does not name",
                           t->file->path, t->tensor->name, path);
        }
        if (order > 0 || strcmp(base_name(t->file->path), e->file) != 0) {
            return err_set(err, ERR_CORRUPT, "%s says tensor %s is in %s, but it is not there",
                           path, e->tensor, e->file);
        }
    }
    return 0;
}

static int open_indexed(struct hf_folder *f, const struct hf_index *x, const char *path,
                        struct err *err)
{
    f->file = mem_alloc_array(x->file_count, sizeof *f->file);
    for (size_t i = 0; i < x->file_count; i++) {
        TRY(open_file(f, x->file[i], path, err));
    }
    TRY(collect(f, err));
    return check_index(f, x, path, err);
}

static int open_single(struct hf_folder *f, struct err *err)
{
    char *name;
    TRY(find_single(f->dir, &name, err));
    f->file = mem_alloc(sizeof *f->file);
    int rc = open_file(f, name, NULL, err);
    free(name);
    return rc == 0 ? collect(f, err) : rc;
}

static int open_files(struct hf_folder *f, struct err *err)
{
    char path[PATH_MAX + 64];
    struct buf text = {0};
    struct hf_index index = {0};
    struct err why = {0};
    snprintf(path, sizeof path, "%s/" HF_INDEX_FILE, f->dir);
    int rc = file_read(path, HF_INDEX_BYTES_MAX, &text, &why);
    if (rc == ERR_NOT_FOUND) {
        rc = open_single(f, err);
    } else if (rc != 0) {
        rc = err_set(err, rc, "%s", why.text);
    } else {
        rc = hf_index_parse(&index, buf_cstr(&text), text.len, path, err);
        rc = rc == 0 ? open_indexed(f, &index, path, err) : rc;
    }
    hf_index_fini(&index);
    buf_fini(&text);
    return rc;
}

/* MTP modules are the layers after the others; they are there as a whole or not at all. */
static void count_mtp(struct hf_folder *f)
{
    struct model_config *c = &f->config;
    unsigned layer;
    c->num_nextn_predict_layers = 0;
    for (size_t i = 0; i < f->count; i++) {
        if (sscanf(f->tensor[i].tensor->name, "model.layers.%9u.", &layer) == 1 &&
            layer >= c->num_hidden_layers && layer - c->num_hidden_layers < MTP_MAX &&
            layer - c->num_hidden_layers >= c->num_nextn_predict_layers) {
            c->num_nextn_predict_layers = layer - c->num_hidden_layers + 1;
        }
    }
}

/* ---- */

int hf_folder_open(struct hf_folder *f, const char *dir, struct err *err)
{
    *f = (struct hf_folder){0};
    if (strlen(dir) >= PATH_MAX) {
        return err_set(err, ERR_INVALID, "path too long: %.100s...", dir);
    }
    f->dir = mem_strdup(dir);
    allow_files();
    int rc = read_config(f, err);
    rc = rc == 0 ? open_files(f, err) : rc;
    if (rc == 0 && !f->says_mtp) {
        count_mtp(f);
    }
    if (rc != 0) {
        hf_folder_close(f);
    }
    return rc;
}

void hf_folder_close(struct hf_folder *f)
{
    for (size_t i = 0; i < f->file_count; i++) {
        safetensors_close(&f->file[i]);
    }
    free(f->file);
    free(f->tensor);
    free(f->dir);
    *f = (struct hf_folder){0};
}

static int name_order(const void *name, const void *tensor)
{
    return strcmp(name, ((const struct hf_tensor *)tensor)->tensor->name);
}

const struct hf_tensor *hf_folder_find(struct hf_folder *f, const char *name)
{
    struct hf_tensor *t = bsearch(name, f->tensor, f->count, sizeof *f->tensor, name_order);
    if (t != NULL) {
        t->used = true;
    }
    return t;
}
