/* The experts' products against sums in double of the very numbers that codes and scales stand for:
 * random groups, some empty, sizes that end inside a tile; results poisoned, and nothing written
 * beyond them. */
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "tests/gpu/check.h"
#include "trainer/cuda/grouped.h"
#include "trainer/cuda/state.h"
#include "trainer/cuda/tiles.h"
#include "trainer/half.h"

#define FP8_PRODUCT 1e-3
#define BF16        4e-3 /* rounding of the result alone */

struct groups {
    size_t count, rows, padded;
    size_t offset[9];
    uint32_t *device;
};

static struct groups groups_make(size_t most)
{
    struct groups g = {.count = 1 + check_below(8)};
    uint32_t offset[9];
    do {
        g.rows = check_offsets(g.offset, g.count, most);
    } while (g.rows == 0);
    for (size_t i = 0; i <= g.count; i++) {
        offset[i] = (uint32_t)g.offset[i];
    }
    g.padded = (size_t)FP8_TILE * tiles_most((uint32_t)g.rows, (uint32_t)g.count);
    g.device = upload(offset, (g.count + 1) * sizeof *offset);
    return g;
}

static struct grouped on_device(const struct groups *g)
{
    return (struct grouped){g->device, (uint32_t)g->count, (uint32_t)g->rows,
                            cuda_state.multiprocessors, cuda_state.stream};
}

static uint16_t *random_bf16(size_t count)
{
    uint16_t *host = mem_alloc_array(count, sizeof *host), *device;
    fill_bf16(host, count);
    device = upload(host, count * sizeof *host);
    free(host);
    return device;
}

static struct fp8_codes codes_make(size_t codes, size_t scales)
{
    return (struct fp8_codes){poisoned(codes), poisoned(scales * sizeof(float))};
}

static void codes_release(struct fp8_codes c)
{
    check.gpu->release(c.code);
    check.gpu->release(c.scale);
}

/* Codes times scales as numbers. */
static float *numbers(struct fp8_codes c, size_t rows, size_t cols, bool block)
{
    size_t pitch = block ? block_scale_pitch(cols) : 0;
    size_t scales = block ? (rows + 127) / 128 * pitch : (cols + 127) / 128 * rows;
    uint8_t *code = download(c.code, rows * cols);
    float *scale = download(c.scale, scales * sizeof *scale);
    float *x = mem_alloc_array(rows * cols, sizeof *x);
    for (size_t i = 0; i < rows * cols; i++) {
        size_t row = i / cols, col = i % cols;
        x[i] = fp8_decode(code[i]) *
               (block ? scale[row / 128 * pitch + col / 128] : scale[col / 128 * rows + row]);
    }
    free(code);
    free(scale);
    return x;
}

static void rows_product(void)
{
    struct groups g = groups_make(check.large ? 600 : 160);
    size_t n = 128 * check_size(2, 12), k = 128 * check_size(2, 12);
    uint16_t *x = random_bf16(g.rows * k);
    struct pair w = pair_dense(g.count * n, k);
    struct fp8_codes xc = codes_make(g.rows * k, k / 128 * g.rows);
    struct fp8_codes wc = codes_make(g.count * n * k, g.count * n / 128 * block_scale_pitch(k));
    struct fp8_codes none = {NULL, NULL};
    check_true("quantise_rows", quantise_rows(x, g.rows, k, 0, xc, cuda_state.stream) == 0);
    check_true("quantise_weight",
               quantise_weight(w.gpu.data, g.count * n, k, wc, none, cuda_state.stream) == 0);
    size_t room = g.rows * n + 1024; /* of which the end must stay poisoned */
    uint16_t *y = poisoned(room * sizeof *y), *wanted_end = poisoned(1024 * sizeof *y);
    check_true("grouped_rows",
               grouped_rows(on_device(&g), (uint32_t)n, (uint32_t)k, xc, wc, y) == 0);
    float *a = numbers(xc, g.rows, k, false), *b = numbers(wc, g.count * n, k, true);
    float *wanted = mem_alloc_array(g.rows * n, sizeof *wanted);
    check.cpu->linear((struct op_groups){g.count, g.offset}, mat_of(a, g.rows, k), b,
                      mat_of(wanted, g.rows, n));
    uint16_t *got = download(y, room * sizeof *got),
             *end = download(wanted_end, 1024 * sizeof *end);
    float *values = mem_alloc_array(g.rows * n, sizeof *values);
    for (size_t i = 0; i < g.rows * n; i++) {
        values[i] = bf16_decode(got[i]);
    }
    check_floats("grouped_rows", values, wanted, g.rows * n, BF16);
    check_bytes("grouped_rows, beyond the end", got + g.rows * n, end, 1024 * sizeof *end);
    free(a);
    free(b);
    free(wanted);
    free(got);
    free(end);
    free(values);
    codes_release(xc);
    codes_release(wc);
    pair_free(&w);
    void *all[] = {x, y, wanted_end, g.device};
    for (size_t i = 0; i < 4; i++) {
        check.gpu->release(all[i]);
    }
}

/* Column codes as rows of numbers [rows, cols]. */
static float *column_numbers(struct fp8_codes c, const struct groups *g, size_t cols)
{
    uint8_t *code = download(c.code, cols * g->padded);
    float *scale = download(c.scale, g->padded / 128 * cols * sizeof *scale);
    float *x = mem_alloc_array(g->rows * cols, sizeof *x);
    size_t tile = 0;
    for (size_t i = 0; i < g->count; i++) {
        size_t rows = g->offset[i + 1] - g->offset[i];
        for (size_t r = 0; r < rows; r++) {
            for (size_t col = 0; col < cols; col++) {
                x[(g->offset[i] + r) * cols + col] =
                    fp8_decode(code[col * g->padded + tile * 128 + r]) *
                    scale[(tile + r / 128) * cols + col];
            }
        }
        tile += tiles_of((uint32_t)rows);
    }
    free(code);
    free(scale);
    return x;
}

static struct fp8_codes columns(const uint16_t *x, const struct groups *g, size_t cols)
{
    struct fp8_codes c = codes_make(cols * g->padded, g->padded / 128 * cols);
    struct fp8_codes none = {NULL, NULL};
    check_true("quantise_both", quantise_both(x, g->rows, cols, g->device, (uint32_t)g->count, 0, 0,
                                              none, c, g->padded, cuda_state.stream) == 0);
    return c;
}

static void weights_product(void)
{
    struct groups g = groups_make(check.large ? 600 : 200);
    size_t n = 8 * check_size(30, 200), k = 8 * check_size(30, 200);
    uint16_t *dy = random_bf16(g.rows * n), *x = random_bf16(g.rows * k);
    struct fp8_codes dyc = columns(dy, &g, n), xc = columns(x, &g, k);
    struct pair dw = pair_dense(g.count * n, k);
    check_true("grouped_weights", grouped_weights(on_device(&g), (uint32_t)n, (uint32_t)k, g.padded,
                                                  dyc, xc, 0.3f, dw.gpu.data) == 0);
    float *a = column_numbers(dyc, &g, n), *b = column_numbers(xc, &g, k);
    check.cpu->linear_dw((struct op_groups){g.count, g.offset}, mat_of(a, g.rows, n),
                         mat_of(b, g.rows, k), 0.3f, dw.cpu.data);
    pair_check("grouped_weights", dw, FP8_PRODUCT);
    free(a);
    free(b);
    codes_release(dyc);
    codes_release(xc);
    pair_free(&dw);
    void *all[] = {x, dy, g.device};
    for (size_t i = 0; i < 3; i++) {
        check.gpu->release(all[i]);
    }
}

void check_grouped(void)
{
    for (int trial = 0; trial < (check.large ? 8 : 2); trial++) {
        rows_product();
        weights_product();
    }
}
