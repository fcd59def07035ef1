#include "trainer/hf_write.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/mem.h"
#include "trainer/ckpt_tensors.h"
#include "trainer/digest.h"
#include "trainer/fp8.h"
#include "trainer/hf_average.h"
#include "trainer/hf_encode.h"
#include "trainer/progress.h"
#include "trainer/reshard.h"
#include "trainer/safetensors.h"

#define CHUNK_BYTES ((size_t)4 << 20)

struct writer {
    const struct tensor_list *tensors;
    const struct hf_plan *plan;
    const struct out_folder *out;
    bool *seen;    /* owned; of each tensor */
    float *band;   /* owned; rows as they were read */
    void *coded;   /* owned; and as they are written */
    float *scales; /* owned; of a row of blocks */
    uint64_t read_bytes, all_bytes;
    struct hf_average *average; /* borrowed; NULL: the weights themselves are exported */
    /* the shard at hand */
    struct safetensors shard;
    struct digest digest;
    uint64_t at;
};

/* ---- reading */

/* The next bytes of the shard, hashed. */
static int read_next(struct writer *w, void *out, size_t bytes, struct err *err)
{
    TRY(safetensors_read_at(&w->shard, w->at, out, bytes, err));
    digest_update(&w->digest, out, bytes);
    w->at += bytes;
    w->read_bytes += bytes;
    progress_bytes(w->read_bytes, w->all_bytes);
    return out_folder_interrupted(w->out, err);
}

static int skip(struct writer *w, uint64_t bytes, struct err *err)
{
    char *chunk = mem_alloc(CHUNK_BYTES);
    int rc = 0;
    while (bytes > 0 && rc == 0) {
        size_t n = bytes < CHUNK_BYTES ? (size_t)bytes : CHUNK_BYTES;
        rc = read_next(w, chunk, n, err);
        bytes -= n;
    }
    free(chunk);
    return rc;
}

/* The weights' moving average in place of the next bytes. A router's bias has none: it is as it is.
 */
static int read_average(struct writer *w, const struct tensor *t, uint64_t first, size_t count,
                        struct err *err)
{
    TRY(hf_average_read(w->average, t->name, t->kind == TENSOR_BIAS, first, count, w->band, err));
    return out_folder_interrupted(w->out, err);
}

/* ---- writing */

static int write_at(const struct writer *w, int fd, const struct hf_item *i, const void *data,
                    size_t bytes, uint64_t at, struct err *err)
{
    const char *p = data;
    while (bytes > 0) {
        ssize_t put = pwrite(fd, p, bytes, (off_t)at);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            return err_set_errno(err, "cannot write %s/%s", w->out->tmp,
                                 w->plan->file[i->file].name);
        }
        p += put;
        at += (uint64_t)put;
        bytes -= (size_t)put;
    }
    return 0;
}

static int open_file(const struct writer *w, uint32_t file, int flags, int *fd, struct err *err)
{
    char *path = mem_printf("%s/%s", w->out->tmp, w->plan->file[file].name);
    *fd = open(path, flags | O_WRONLY | O_CLOEXEC, 0666);
    int rc = *fd >= 0 ? 0 : err_set_errno(err, "cannot open %s", path);
    free(path);
    return rc;
}

/* With their headers, and all the room they need: a full disk fails before the work. */
static int create_files(const struct writer *w, struct err *err)
{
    for (uint32_t f = 0; f < w->plan->file_count; f++) {
        const struct hf_file *file = &w->plan->file[f];
        const struct hf_item header = {.file = f};
        int fd;
        TRY(open_file(w, f, O_CREAT | O_EXCL, &fd, err));
        int rc = 0;
        if (fallocate(fd, 0, 0, (off_t)file->bytes) != 0 && errno != EOPNOTSUPP &&
            errno != ENOSYS) {
            rc = err_set_errno(err, "%s/%s: cannot reserve %" PRIu64 " bytes", w->out->tmp,
                               file->name, file->bytes);
        }
        rc = rc == 0 ? write_at(w, fd, &header, file->header.data, file->header.len, 0, err) : rc;
        close(fd);
        TRY(rc);
    }
    return 0;
}

static int fsync_files(const struct writer *w, struct err *err)
{
    for (uint32_t f = 0; f < w->plan->file_count; f++) {
        int fd;
        TRY(open_file(w, f, 0, &fd, err));
        int rc = fsync(fd) == 0
                     ? 0
                     : err_set_errno(err, "cannot fsync %s/%s", w->out->tmp, w->plan->file[f].name);
        close(fd);
        TRY(rc);
    }
    return 0;
}

/* ---- one tensor */

/* Rows of it at a time: whole blocks of the scales. A vector is one row. */
struct band {
    uint32_t row, rows, cols;
};

static bool encode(struct writer *w, const struct hf_item *i, struct band b, const void **data)
{
    size_t n = (size_t)b.rows * b.cols;
    *data = w->coded;
    switch (i->type) {
    case HF_ITEM_F32:
        return hf_encode_f32(w->band, n, w->coded);
    case HF_ITEM_BF16:
        return hf_encode_bf16(w->band, n, w->coded);
    case HF_ITEM_FP8:
        return hf_encode_fp8(w->band, b.rows, b.cols, w->coded, w->scales);
    case HF_ITEM_SCALE:
        *data = w->scales; /* its codes came just before */
        return true;
    }
    return false;
}

static int write_band(struct writer *w, const struct hf_item *i, struct band b, struct err *err)
{
    const void *data;
    uint64_t row = b.row;
    uint64_t bytes = (uint64_t)b.rows * b.cols * hf_item_bytes(i->type);
    uint64_t row_bytes = (uint64_t)b.cols * hf_item_bytes(i->type);
    int fd;
    if (!encode(w, i, b, &data)) {
        return err_set(err, ERR_CORRUPT, "%s: tensor %s: a value in rows %u to %u is not finite%s",
                       w->shard.path, i->from->name, b.row, b.row + b.rows - 1,
                       i->type == HF_ITEM_BF16 ? ", or too large for BF16" : "");
    }
    if (i->type == HF_ITEM_SCALE) {
        row = b.row / FP8_TILE;
        row_bytes = bytes = (uint64_t)i->cols * hf_item_bytes(i->type);
    }
    TRY(open_file(w, i->file, 0, &fd, err));
    int rc = write_at(w, fd, i, data, bytes, i->offset + row * row_bytes, err);
    if (close(fd) != 0 && rc == 0) {
        rc = err_set_errno(err, "cannot close %s/%s", w->out->tmp, w->plan->file[i->file].name);
    }
    return rc;
}

static int read_band(struct writer *w, const struct tensor *t, struct band b, struct err *err)
{
    size_t count = (size_t)b.rows * b.cols;
    if (w->average != NULL) {
        return read_average(w, t, (uint64_t)b.row * b.cols, count, err);
    }
    return read_next(w, w->band, count * sizeof *w->band, err);
}

static int export_tensor(struct writer *w, const struct tensor *t, struct err *err)
{
    uint32_t rows = t->is_vector ? 1 : t->rows;
    struct band b = {.cols = t->is_vector ? t->rows : t->cols};
    for (; b.row < rows; b.row += b.rows) {
        b.rows = rows - b.row < FP8_TILE ? rows - b.row : FP8_TILE;
        TRY(read_band(w, t, b, err));
        for (const struct hf_item *i = w->plan->first[t - w->tensors->item]; i != NULL;
             i = i->again) {
            TRY(write_band(w, i, b, err));
        }
    }
    return 0;
}

/* ---- one shard */

static int check_tensor(const struct writer *w, const struct safetensors_tensor *have,
                        const struct tensor *want, struct err *err)
{
    const uint64_t shape[2] = {want->rows, want->cols};
    uint32_t dimensions = want->is_vector ? 1 : 2;
    char has[128];
    char needs[64];
    if (strcmp(have->dtype, "F32") == 0 && have->dimensions == dimensions &&
        memcmp(have->shape, shape, dimensions * sizeof *shape) == 0) {
        return 0;
    }
    safetensors_shape_text(has, sizeof has, have->dimensions, have->shape);
    safetensors_shape_text(needs, sizeof needs, dimensions, shape);
    return err_set(err, ERR_CORRUPT, "%s: tensor %s is %s %s, the model needs F32 %s",
                   w->shard.path, have->name, have->dtype, has, needs);
}

static int no_place(const struct writer *w, const struct safetensors_tensor *have, struct err *err)
{
    return err_set(err, ERR_CORRUPT, "%s: tensor %s has no place in this model", w->shard.path,
                   have->name);
}

/* optimizer.STATE.NAME, or a run of its elements: of a tensor of the model, and read over. */
static int skip_moment(struct writer *w, const struct safetensors_tensor *have, struct err *err)
{
    struct reshard_run run;
    uint64_t bytes = have->end - have->begin;
    int rc = reshard_parse(&run, have->name, bytes / sizeof(float), err);
    if (rc != 0) {
        return err_wrap(err, "%s", w->shard.path);
    }
    const char *name = strchr(run.name + strlen(CKPT_MOMENT_PREFIX), '.');
    const struct tensor *t = name != NULL ? tensor_list_find(w->tensors, name + 1) : NULL;
    if (t == NULL || run.first + run.count > tensor_elements(t)) {
        return no_place(w, have, err);
    }
    return run.whole && run.count != tensor_elements(t) ? check_tensor(w, have, t, err)
                                                        : skip(w, bytes, err);
}

static int take_tensor(struct writer *w, const struct safetensors_tensor *have, struct err *err)
{
    if (strncmp(have->name, CKPT_MOMENT_PREFIX, strlen(CKPT_MOMENT_PREFIX)) == 0) {
        return skip_moment(w, have, err);
    }
    const struct tensor *t = tensor_list_find(w->tensors, have->name);
    if (t == NULL) {
        return no_place(w, have, err);
    }
    bool *seen = &w->seen[t - w->tensors->item];
    if (*seen) {
        return err_set(err, ERR_CORRUPT, "%s: tensor %s is in another shard, too", w->shard.path,
                       have->name);
    }
    *seen = true;
    TRY(check_tensor(w, have, t, err));
    return export_tensor(w, t, err);
}

static int by_place(const void *a, const void *b)
{
    const struct safetensors_tensor *x = *(const struct safetensors_tensor *const *)a;
    const struct safetensors_tensor *y = *(const struct safetensors_tensor *const *)b;
    return x->begin != y->begin ? (x->begin < y->begin ? -1 : 1)
           : x->end != y->end   ? (x->end < y->end ? -1 : 1)
                                : 0;
}

static int read_shard(struct writer *w, const struct manifest_shard *shard, struct err *err)
{
    size_t count = w->shard.count;
    char xxh3[33];
    char sha256[65];
    if (w->shard.file_bytes != shard->bytes) {
        return err_set(err, ERR_CORRUPT, "%s has %" PRIu64 " bytes, the manifest says %" PRIu64,
                       w->shard.path, w->shard.file_bytes, shard->bytes);
    }
    const struct safetensors_tensor **order = mem_alloc_array(count, sizeof *order);
    for (size_t i = 0; i < count; i++) {
        order[i] = &w->shard.tensors[i];
    }
    qsort(order, count, sizeof *order, by_place); /* they cover the data without gaps */
    int rc = skip(w, w->shard.data_start, err);
    for (size_t i = 0; i < count && rc == 0; i++) {
        rc = take_tensor(w, order[i], err);
    }
    free(order);
    TRY(rc);
    digest_final(&w->digest, xxh3, sha256);
    return strcmp(xxh3, shard->xxh3) == 0 && strcmp(sha256, shard->sha256) == 0
               ? 0
               : err_set(err, ERR_CORRUPT,
                         "%s (rank %u) has other digests than the manifest says: its bytes changed",
                         w->shard.path, shard->rank);
}

static int take_shard(struct writer *w, const char *dir, const struct manifest_shard *shard,
                      struct err *err)
{
    char *path = mem_printf("%s/%s", dir, shard->file);
    struct err why = {0};
    w->at = 0;
    int rc = safetensors_open(&w->shard, path, &why);
    if (rc != 0) { /* without one of its files it is no checkpoint */
        rc = err_set(err, rc == ERR_NOT_FOUND ? ERR_CORRUPT : rc, "%s", why.text);
    } else {
        rc = digest_init(&w->digest, err);
        rc = rc == 0 ? read_shard(w, shard, err) : rc;
        digest_fini(&w->digest);
        safetensors_close(&w->shard);
    }
    free(path);
    return rc;
}

/* ---- all */

static void allocate(struct writer *w, const struct manifest *manifest)
{
    size_t most = 1;
    size_t widest = 1;
    for (size_t i = 0; i < w->tensors->count; i++) {
        const struct tensor *t = &w->tensors->item[i];
        size_t n =
            t->is_vector ? t->rows : (size_t)(t->rows < FP8_TILE ? t->rows : FP8_TILE) * t->cols;
        most = n > most ? n : most;
        widest = t->cols > widest ? t->cols : widest;
    }
    w->seen = mem_alloc_array(w->tensors->count, sizeof *w->seen);
    w->band = mem_alloc_array(most, sizeof *w->band);
    w->coded = mem_alloc_array(most, sizeof *w->band);
    w->scales = mem_alloc_array((widest + FP8_TILE - 1) / FP8_TILE, sizeof *w->scales);
    for (uint32_t i = 0; i < manifest->world_size; i++) {
        w->all_bytes += manifest->shards[i].bytes;
    }
}

static int check_all_seen(const struct writer *w, const struct manifest *manifest, const char *dir,
                          struct err *err)
{
    for (size_t i = 0; i < w->tensors->count; i++) {
        if (!w->seen[i]) {
            return err_set(err, ERR_CORRUPT, "%s: tensor %s is in none of the %u shards", dir,
                           w->tensors->item[i].name, manifest->world_size);
        }
    }
    return 0;
}

static int export_average(struct writer *w, const struct manifest *manifest, const char *dir,
                          struct err *err)
{
    struct hf_average average;
    int rc = hf_average_open(&average, manifest, dir, err);
    w->average = &average;
    w->shard.path = (char *)dir; /* for messages */
    for (size_t i = 0; i < w->tensors->count && rc == 0; i++) {
        rc = export_tensor(w, &w->tensors->item[i], err);
    }
    w->shard.path = NULL;
    hf_average_close(&average);
    return rc;
}

static int export_weights(struct writer *w, const struct manifest *manifest, const char *dir,
                          struct err *err)
{
    for (uint32_t i = 0; i < manifest->world_size; i++) {
        TRY(take_shard(w, dir, &manifest->shards[i], err));
    }
    return check_all_seen(w, manifest, dir, err);
}

int hf_write_tensors(const struct manifest *manifest, const char *ckpt_dir, bool ema,
                     const struct tensor_list *tensors, const struct hf_plan *plan,
                     const struct out_folder *out, struct err *err)
{
    struct writer w = {.tensors = tensors, .plan = plan, .out = out};
    allocate(&w, manifest);
    int rc = create_files(&w, err);
    if (rc == 0) {
        rc = ema ? export_average(&w, manifest, ckpt_dir, err)
                 : export_weights(&w, manifest, ckpt_dir, err);
    }
    progress_clear();
    rc = rc == 0 ? fsync_files(&w, err) : rc;
    free(w.seen);
    free(w.band);
    free(w.coded);
    free(w.scales);
    return rc;
}
