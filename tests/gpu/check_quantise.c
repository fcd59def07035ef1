/* Codes and scales: multiplied out they are the numbers that the CPU back end's grids give, to the
 * bit, in the places that quantise.h says. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "tests/gpu/check.h"
#include "trainer/cuda/quantise.h"
#include "trainer/cuda/state.h"
#include "trainer/cuda/tiles.h"
#include "trainer/e5m6.h"
#include "trainer/half.h"

#define RUN(call) check_true(#call, (call) == 0)

struct sample {
    size_t rows, cols, groups, padded;
    size_t offset[8];
    uint32_t offset32[8];
    float *x; /* the BF16 numbers */
    uint16_t *device;
    uint32_t *device_offset;
};

/* Tiles of ordinary, tiny and huge numbers and of zeros. */
static struct sample sample_make(void)
{
    static const float scales[] = {0, 1e-30f, 1e-6f, 1, 1e4f, 1e30f, 1, 1};
    struct sample s = {.groups = 1 + check_below(6)};
    s.rows = check_offsets(s.offset, s.groups, check.large ? 1000 : 200);
    s.cols = 8 * check_size(40, 900);
    s.padded = (size_t)FP8_TILE * tiles_most((uint32_t)s.rows, (uint32_t)s.groups);
    for (size_t g = 0; g <= s.groups; g++) {
        s.offset32[g] = (uint32_t)s.offset[g];
    }
    uint16_t *codes = mem_alloc_array(s.rows * s.cols, sizeof *codes);
    s.x = mem_alloc_array(s.rows * s.cols, sizeof *s.x);
    for (size_t i = 0; i < s.rows * s.cols; i++) {
        float v = check_normal() * scales[(i / s.cols / 50 + i % s.cols / 128) % 8];
        codes[i] = bf16_encode(check_below(20000) == 0 ? NAN : v);
        s.x[i] = bf16_decode(codes[i]);
    }
    s.device = upload(codes, s.rows * s.cols * sizeof *codes);
    s.device_offset = upload(s.offset32, sizeof s.offset32);
    free(codes);
    return s;
}

static void sample_free(struct sample *s)
{
    free(s->x);
    check.gpu->release(s->device);
    check.gpu->release(s->device_offset);
}

static struct fp8_codes codes_make(size_t codes, size_t scales)
{
    return (struct fp8_codes){poisoned(codes), poisoned(scales * sizeof(float))};
}

/* To the host; the device's are released. */
static struct fp8_codes codes_take(struct fp8_codes c, size_t codes, size_t scales)
{
    struct fp8_codes host = {download(c.code, codes), download(c.scale, scales * sizeof(float))};
    check.gpu->release(c.code);
    check.gpu->release(c.scale);
    return host;
}

static void codes_free(struct fp8_codes host)
{
    free(host.code);
    free(host.scale);
}

/* What the CPU back end makes of x. */
static float *grid(const struct sample *s, enum op_format format)
{
    float *y = mem_alloc_array(s->rows * s->cols, sizeof *y);
    struct op_groups groups = {s->groups, s->offset};
    check.cpu->quantise(format, groups, mat_of(s->x, s->rows, s->cols),
                        mat_of(y, s->rows, s->cols));
    return y;
}

static void same(const char *what, float *got, float *wanted, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (isnan(got[i]) && isnan(wanted[i])) {
            got[i] = wanted[i] = 0;
        }
    }
    check_floats(what, got, wanted, count, 0);
    free(got);
    free(wanted);
}

static float *rows_decoded(const struct sample *s, struct fp8_codes c)
{
    float *y = mem_alloc_array(s->rows * s->cols, sizeof *y);
    for (size_t i = 0; i < s->rows * s->cols; i++) {
        y[i] = fp8_decode(c.code[i]) * c.scale[i % s->cols / FP8_TILE * s->rows + i / s->cols];
    }
    return y;
}

/* Column codes, in the rows' order; checks that the places between groups are zero. */
static float *cols_decoded(const struct sample *s, struct fp8_codes c)
{
    float *y = mem_alloc_array(s->rows * s->cols, sizeof *y);
    bool zero = true;
    struct row_tile t;
    for (uint32_t tile = 0; tile_find(s->offset32, (uint32_t)s->groups, tile, &t); tile++) {
        for (size_t i = 0; i < FP8_TILE * s->cols; i++) {
            size_t row = i / s->cols, col = i % s->cols;
            uint8_t code = c.code[col * s->padded + tile * FP8_TILE + row];
            if (row < t.rows) {
                y[(t.first + row) * s->cols + col] =
                    fp8_decode(code) * c.scale[tile * s->cols + col];
            } else {
                zero = zero && (fp8_decode(code) == 0 || isnan(c.scale[tile * s->cols + col]));
            }
        }
    }
    check_true("rows beyond a group are zero", zero);
    return y;
}

static void rows_and_columns(void)
{
    struct sample s = sample_make();
    size_t cells = s.rows * s.cols, tiles = (s.cols + 127) / 128, places = s.cols * s.padded;
    size_t col_scales = s.padded / FP8_TILE * s.cols;
    for (int pow2 = 0; pow2 < 2 && cells > 0; pow2++) {
        enum op_format row = pow2 ? OP_FP8_ROW_POW2 : OP_FP8_ROW;
        enum op_format col = pow2 ? OP_FP8_COL_POW2 : OP_FP8_COL;
        struct fp8_codes one = codes_make(cells, tiles * s.rows);
        RUN(quantise_rows(s.device, s.rows, s.cols, pow2, one, cuda_state.stream));
        one = codes_take(one, cells, tiles * s.rows);
        same("quantise_rows", rows_decoded(&s, one), grid(&s, row), cells);
        codes_free(one);
        struct fp8_codes r = codes_make(cells, tiles * s.rows), c = codes_make(places, col_scales);
        RUN(quantise_both(s.device, s.rows, s.cols, s.device_offset, (uint32_t)s.groups, pow2, pow2,
                          r, c, s.padded, cuda_state.stream));
        c = codes_take(c, places, col_scales);
        same("quantise_both, columns", cols_decoded(&s, c), grid(&s, col), cells);
        codes_free(c);
        c = codes_make(places, col_scales);
        RUN(quantise_again(r, s.rows, s.cols, s.device_offset, (uint32_t)s.groups, pow2, c,
                           s.padded, cuda_state.stream));
        r = codes_take(r, cells, tiles * s.rows);
        c = codes_take(c, places, col_scales);
        same("quantise_both, rows", rows_decoded(&s, r), grid(&s, row), cells);
        /* again: of the numbers that the row codes stand for */
        free(s.x);
        s.x = rows_decoded(&s, r);
        same("quantise_again", cols_decoded(&s, c), grid(&s, col), cells);
        codes_free(r);
        codes_free(c);
        for (size_t i = 0; i < cells; i++) { /* back */
            s.x[i] = 0;
        }
        uint16_t *bf16 = download(s.device, cells * sizeof *bf16);
        for (size_t i = 0; i < cells; i++) {
            s.x[i] = bf16_decode(bf16[i]);
        }
        free(bf16);
    }
    sample_free(&s);
}

static void weights(void)
{
    size_t n = 16 * check_size(20, 300), k = 16 * check_size(20, 300), cells = n * k;
    size_t down = (n + 127) / 128, pitch = block_scale_pitch(k), across = (k + 127) / 128;
    struct pair w = pair_dense(n, k);
    struct fp8_codes block = codes_make(cells, down * pitch);
    struct fp8_codes turned = codes_make(cells, across * block_scale_pitch(n));
    RUN(quantise_weight(w.gpu.data, n, k, block, turned, cuda_state.stream));
    block = codes_take(block, cells, down * pitch);
    turned = codes_take(turned, cells, across * block_scale_pitch(n));
    float *wanted = mem_alloc_array(cells, sizeof *wanted);
    float *again = mem_alloc_array(cells, sizeof *again);
    float *a = mem_alloc_array(cells, sizeof *a), *b = mem_alloc_array(cells, sizeof *b);
    check.cpu->quantise(OP_FP8_BLOCK, (struct op_groups){0}, w.cpu, mat_of(wanted, n, k));
    memcpy(again, wanted, cells * sizeof *again);
    for (size_t i = 0; i < cells; i++) {
        size_t row = i / k, col = i % k;
        a[i] = fp8_decode(block.code[i]) * block.scale[row / 128 * pitch + col / 128];
        b[i] = fp8_decode(turned.code[col * n + row]) *
               turned.scale[col / 128 * block_scale_pitch(n) + row / 128];
    }
    same("quantise_weight", a, wanted, cells);
    same("quantise_weight, transposed", b, again, cells);
    codes_free(block);
    codes_free(turned);
    pair_free(&w);
}

static uint16_t packed_at(const uint32_t *kept, size_t i)
{
    size_t bit = i * 12;
    uint64_t word = kept[bit / 32];
    if (bit % 32 > 20) {
        word |= (uint64_t)kept[bit / 32 + 1] << 32;
    }
    return (uint16_t)(word >> bit % 32 & 0xFFF);
}

static void e5m6(void)
{
    struct sample s = sample_make();
    size_t cells = s.rows * s.cols, tiles = (s.cols + 127) / 128, words = cells * 3 / 8;
    if (cells > 0) {
        uint32_t *kept = poisoned(words * sizeof *kept);
        float *scale = poisoned(tiles * s.rows * sizeof *scale);
        uint16_t *back = poisoned(cells * sizeof *back);
        RUN(e5m6_pack(s.device, s.rows, s.cols, kept, scale, cuda_state.stream));
        RUN(e5m6_unpack(kept, scale, s.rows, s.cols, back, cuda_state.stream));
        uint32_t *code = download(kept, words * sizeof *code);
        float *factor = download(scale, tiles * s.rows * sizeof *factor);
        uint16_t *half = download(back, cells * sizeof *half);
        float *got = mem_alloc_array(cells, sizeof *got),
              *unpacked = mem_alloc_array(cells, sizeof *got);
        float *wanted = grid(&s, OP_E5M6_ROW), *again = grid(&s, OP_E5M6_ROW);
        for (size_t i = 0; i < cells; i++) {
            got[i] = e5m6_decode(packed_at(code, i)) *
                     factor[i % s.cols / FP8_TILE * s.rows + i / s.cols];
            unpacked[i] = bf16_decode(half[i]);
            again[i] = bf16_round(again[i]);
        }
        same("e5m6_pack", got, wanted, cells);
        same("e5m6_unpack", unpacked, again, cells);
        free(code);
        free(factor);
        free(half);
        check.gpu->release(kept);
        check.gpu->release(scale);
        check.gpu->release(back);
    }
    sample_free(&s);
}

/* The walk over grouped tiles is a plan of every row and every output tile, each once. */
static void tiles(void)
{
    size_t offset[12];
    uint32_t offset32[12], groups = 1 + (uint32_t)check_below(11);
    check_offsets(offset, groups, 700);
    for (size_t g = 0; g <= groups; g++) {
        offset32[g] = (uint32_t)offset[g];
    }
    uint32_t next = 0, tile = 0, cols = 1 + (uint32_t)check_below(20);
    struct row_tile t;
    bool whole = true;
    for (; tile_find(offset32, groups, tile, &t); tile++) {
        whole = whole && t.first == next && t.rows >= 1 && t.rows <= 128 &&
                t.first >= offset32[t.group] && t.first + t.rows <= offset32[t.group + 1] &&
                (t.rows == 128 || t.first + t.rows == offset32[t.group + 1]) &&
                (tile - t.start) * 128 == t.first - offset32[t.group];
        next += t.rows;
    }
    check_true("row tiles cover the rows", whole && next == offset32[groups]);
    check_true("tiles_most", tile <= tiles_most(offset32[groups], groups));
    for (uint32_t m = 0; m < 20; m += 19) { /* rows from the offsets, and the same for all groups */
        uint32_t high = m != 0 ? m : 8;
        uint8_t *seen = mem_alloc((size_t)groups * high * cols);
        struct product_tile p;
        uint32_t index = 0, wanted = 0;
        whole = true;
        for (; product_tile_find(offset32, groups, m, cols, index, &p); index++) {
            uint32_t rows = m != 0 ? m : tiles_of(offset32[p.group + 1] - offset32[p.group]);
            whole = whole && p.row < rows && p.col < cols &&
                    seen[((size_t)p.group * high + p.row) * cols + p.col]++ == 0;
        }
        for (uint32_t g = 0; g < groups; g++) {
            wanted += cols * (m != 0 ? m : tiles_of(offset32[g + 1] - offset32[g]));
        }
        check_true("every output tile once", whole && index == wanted);
        free(seen);
    }
}

void check_quantise(void)
{
    for (int trial = 0; trial < 8; trial++) {
        rows_and_columns();
        weights();
        e5m6();
        for (int i = 0; i < 20; i++) {
            tiles();
        }
    }
}
