/* Names in a folder:
 *     model.layers.3.mlp.experts.7.up_proj.weight    [I, H]      as published
 *     model.layers.3.mlp.experts.gate_up_proj        [E, 2I, H]  fused: the rows of gate, then of
 * up model.layers.3.mlp.experts.down_proj           [E, H, I] An FP8 tensor X has X_scale_inv,
 * FP32, one for each block of block_rows x block_cols of a matrix; the last blocks may be smaller.
 * Value = code * scale. */
#include "trainer/hf_source.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "trainer/half.h"

#define NAME_BYTES (TENSOR_NAME_BYTES + 16)

/* What a stored tensor must look like, and where in it the wanted rows are. */
struct shape {
    uint32_t dimensions;
    uint64_t size[3];
    uint32_t matrix, row; /* of the first wanted row */
};

static int refuse(const struct hf_tensor *t, struct err *err, const char *what)
{
    return err_set(err, ERR_CORRUPT, "%s: tensor %s %s", t->file->path, t->tensor->name, what);
}

static int check_shape(const struct hf_tensor *t, const struct shape *want, struct err *err)
{
    char has[128];
    char needs[128];
    if (t->tensor->dimensions == want->dimensions &&
        memcmp(t->tensor->shape, want->size, want->dimensions * sizeof *want->size) == 0) {
        return 0;
    }
    safetensors_shape_text(has, sizeof has, t->tensor->dimensions, t->tensor->shape);
    safetensors_shape_text(needs, sizeof needs, want->dimensions, want->size);
    return err_set(err, ERR_CORRUPT, "%s: tensor %s has shape %s, config.json makes it %s",
                   t->file->path, t->tensor->name, has, needs);
}

static int read_dtype(struct hf_source *s, bool may_be_fp8, struct err *err)
{
    static const char *const names[] = {
        [HF_F32] = "F32", [HF_BF16] = "BF16", [HF_F16] = "F16", [HF_FP8] = "F8_E4M3"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(s->values->tensor->dtype, names[i]) == 0 && (i != HF_FP8 || may_be_fp8)) {
            s->dtype = (enum hf_dtype)i;
            return 0;
        }
    }
    return err_set(err, ERR_CORRUPT, "%s: tensor %s has dtype %s (allowed: F32, BF16, F16%s)",
                   s->values->file->path, s->values->tensor->name, s->values->tensor->dtype,
                   may_be_fp8 ? ", F8_E4M3 with " HF_SCALE_SUFFIX : "");
}

/* ---- scales */

static uint32_t blocks(uint64_t n, uint32_t block)
{
    return (uint32_t)((n + block - 1) / block);
}

static int check_scales(const struct hf_source *s, const struct hf_tensor *t, uint32_t down,
                        struct err *err)
{
    for (uint32_t r = 0; r < down; r++) {
        for (uint32_t c = 0; c < s->blocks_across; c++) {
            float x = s->scale[(size_t)r * s->blocks_across + c];
            if (!isfinite(x) || x < 0) {
                return err_set(err, ERR_CORRUPT,
                               "%s: tensor %s: the scale of block [%u, %u] is %g (allowed: finite, "
                               "not negative)",
                               t->file->path, t->tensor->name, r, c, (double)x);
            }
        }
    }
    return 0;
}

static int open_scales(struct hf_source *s, struct hf_folder *f, const struct shape *of,
                       struct err *err)
{
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%s" HF_SCALE_SUFFIX, s->values->tensor->name);
    const struct hf_tensor *t = hf_folder_find(f, name);
    if (t == NULL) {
        return refuse(s->values, err, "is FP8 and has no " HF_SCALE_SUFFIX " beside it");
    }
    struct shape want = *of;
    uint32_t last = of->dimensions - 1;
    want.size[last] = blocks(of->size[last], f->block_cols);
    want.size[last - 1] = blocks(of->size[last - 1], f->block_rows);
    TRY(check_shape(t, &want, err));
    if (strcmp(t->tensor->dtype, "F32") != 0) {
        return refuse(t, err, "is a scale and not of dtype F32");
    }
    uint32_t down = (uint32_t)want.size[last - 1];
    s->block_rows = f->block_rows;
    s->block_cols = f->block_cols;
    s->blocks_across = (uint32_t)want.size[last];
    s->scale_row = of->row;
    size_t bytes = (size_t)down * s->blocks_across * sizeof *s->scale;
    s->scale = mem_alloc(bytes);
    TRY(safetensors_read_part(t->file, t->tensor, of->matrix * (uint64_t)bytes, s->scale, bytes,
                              err));
    return check_scales(s, t, down, err);
}

/* An FP8 name without FP8 values would be ignored otherwise. */
static int refuse_scales(struct hf_source *s, struct hf_folder *f, struct err *err)
{
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%s" HF_SCALE_SUFFIX, s->values->tensor->name);
    const struct hf_tensor *t = hf_folder_find(f, name);
    return t == NULL ? 0 : refuse(t, err, "is a scale, but what it scales is not FP8");
}

/* ---- finding */

static int open_values(struct hf_source *s, struct hf_folder *f, const struct shape *shape,
                       struct err *err)
{
    TRY(check_shape(s->values, shape, err));
    TRY(read_dtype(s, shape->dimensions > 1, err));
    uint32_t last = shape->dimensions - 1;
    s->cols = (uint32_t)shape->size[last];
    s->first_row = shape->row;
    if (shape->dimensions == 3) {
        s->first_row += shape->matrix * shape->size[1];
    }
    return s->dtype == HF_FP8 ? open_scales(s, f, shape, err) : refuse_scales(s, f, err);
}

int hf_source_open_as(struct hf_source *s, struct hf_folder *f, const char *name,
                      const struct tensor *want, struct err *err)
{
    const struct shape matrix = {.dimensions = 2, .size = {want->rows, want->cols}};
    const struct shape vector = {.dimensions = 1, .size = {want->rows}};
    *s = (struct hf_source){.values = hf_folder_find(f, name)};
    return s->values != NULL ? open_values(s, f, want->is_vector ? &vector : &matrix, err) : 0;
}

static bool ends_with(const char *text, const char *end)
{
    size_t a = strlen(text);
    size_t b = strlen(end);
    return a >= b && strcmp(text + a - b, end) == 0;
}

static int open_fused(struct hf_source *s, struct hf_folder *f, const struct tensor *want,
                      struct err *err)
{
    char name[NAME_BYTES];
    bool down = ends_with(want->name, ".down_proj.weight");
    struct shape shape = {.dimensions = 3,
                          .size = {f->config.n_routed_experts, want->rows, want->cols},
                          .matrix = (uint32_t)want->expert};
    if (!down) {
        shape.size[1] = 2 * (uint64_t)want->rows;
        shape.row = ends_with(want->name, ".up_proj.weight") ? want->rows : 0;
    }
    snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%s", want->layer,
             down ? "down_proj" : "gate_up_proj");
    s->values = hf_folder_find(f, name);
    return s->values != NULL ? open_values(s, f, &shape, err) : 0;
}

int hf_source_open(struct hf_source *s, struct hf_folder *f, const struct tensor *want,
                   struct err *err)
{
    int rc = hf_source_open_as(s, f, want->name, want, err);
    return rc == 0 && s->values == NULL && want->expert >= 0 ? open_fused(s, f, want, err) : rc;
}

void hf_source_close(struct hf_source *s)
{
    free(s->scale);
    *s = (struct hf_source){0};
}

/* ---- reading */

/* The codes lie at the end of out, so that each is read before its place is written. */
static void decode(const struct hf_source *s, uint32_t row, uint32_t count, float *out,
                   const uint8_t *codes)
{
    size_t n = (size_t)count * s->cols;
    uint16_t code;
    for (size_t i = 0; s->dtype == HF_BF16 && i < n; i++) {
        memcpy(&code, codes + 2 * i, sizeof code);
        out[i] = bf16_decode(code);
    }
    for (size_t i = 0; s->dtype == HF_F16 && i < n; i++) {
        memcpy(&code, codes + 2 * i, sizeof code);
        out[i] = f16_decode(code);
    }
    if (s->dtype != HF_FP8) {
        return;
    }
    for (uint32_t r = 0; r < count; r++) {
        uint32_t band = (s->scale_row + row + r) / s->block_rows;
        const float *scale = s->scale + (size_t)band * s->blocks_across;
        for (uint32_t c = 0; c < s->cols; c++) {
            size_t i = (size_t)r * s->cols + c;
            float number = fp8_decode(codes[i]);
            float x = number * scale[c / s->block_cols];
            /* A block of zeros may have any scale; others have one that is lost. */
            out[i] = x == 0 && number != 0 && scale[c / s->block_cols] == 0 ? NAN : x;
        }
    }
}

/* Is what is no number a code whose scale is 0? */
static bool is_unscaled(const struct hf_source *s, uint64_t row, size_t col)
{
    return s->dtype == HF_FP8 && s->scale[(s->scale_row + row) / s->block_rows * s->blocks_across +
                                          col / s->block_cols] == 0;
}

static int check_finite(const struct hf_source *s, uint32_t row, uint32_t count, const float *x,
                        struct err *err)
{
    for (size_t i = 0; i < (size_t)count * s->cols; i++) {
        uint64_t in_block = row + i / s->cols;
        if (!isfinite(x[i]) && is_unscaled(s, in_block, i % s->cols)) {
            return err_set(err, ERR_CORRUPT,
                           "%s: tensor %s: the scale of row %" PRIu64
                           ", column %zu is 0, its code is not",
                           s->values->file->path, s->values->tensor->name, s->first_row + in_block,
                           i % s->cols);
        }
        if (!isfinite(x[i])) {
            return err_set(
                err, ERR_CORRUPT, "%s: tensor %s: the value at row %llu, column %zu is %g",
                s->values->file->path, s->values->tensor->name,
                (unsigned long long)(s->first_row + row + i / s->cols), i % s->cols, (double)x[i]);
        }
    }
    return 0;
}

int hf_source_read(const struct hf_source *s, uint32_t row, uint32_t count, float *out,
                   struct err *err)
{
    static const uint32_t item_bytes[] = {[HF_F32] = 4, [HF_BF16] = 2, [HF_F16] = 2, [HF_FP8] = 1};
    uint32_t width = item_bytes[s->dtype];
    size_t n = (size_t)count * s->cols;
    uint8_t *codes = (uint8_t *)(out + n) - n * width;
    TRY(safetensors_read_part(s->values->file, s->values->tensor,
                              (s->first_row + row) * s->cols * width, codes, n * width, err));
    decode(s, row, count, out, codes);
    return check_finite(s, row, count, out, err);
}
