/* The grids of low precision and products on them against vectors of others
 * (tests/reference/grids.py: ml_dtypes, exact rational arithmetic, FP64), in every instruction set.
 */
#include <stdint.h>

#include "tests/unit/trainer/reference.h"
#include "trainer/cpu/kernels.h"
#include "trainer/e5m6.h"

#define PRODUCT_TOLERANCE 1e-6 /* relative L2: FP32 sums against FP64 */

#define EACH_KERNELS(k)                                                                            \
    for (size_t k##_index = 0; kernels_at(k##_index) != NULL; k##_index++)                         \
        for (const struct kernels *k = kernels_at(k##_index); k != NULL && k->available(); k = NULL)

static bool same(float a, float b)
{
    return float_bits(a) == float_bits(b) || (isnan(a) && isnan(b));
}

/* Counts differences and remembers where the first was. */
struct tally {
    size_t different;
    char first[96];
};

static void tally_floats(struct tally *t, const char *where, size_t i, float got, float want)
{
    if (!same(got, want) && t->different++ == 0) {
        snprintf(t->first, sizeof t->first, "%s %zu: %a, not %a", where, i, (double)got,
                 (double)want);
    }
}

static void tally_codes(struct tally *t, float x, unsigned got, unsigned want)
{
    if (got != want && t->different++ == 0) {
        snprintf(t->first, sizeof t->first, "%a: code 0x%x, not 0x%x", (double)x, got, want);
    }
}

static void note(struct vectors *v, const char *what, const char *kernels, const struct tally *t)
{
    char label[64];
    snprintf(label, sizeof label, "%s (%s)", what, kernels);
    vectors_note(v, label, (double)t->different, 0, t->first);
}

/* ---- single numbers */

static void check_e4m3(struct vectors *v, const struct kernels *k, const float *x, size_t n)
{
    uint8_t *want = vectors_bytes(v, "e4m3", n, 1), *got = mem_alloc_array(n, 1);
    float *values = vectors_floats(v, "e4m3_values", 256), back[256];
    uint8_t all[256];
    struct tally codes = {0}, numbers = {0};
    k->fp8_encode(x, got, n);
    for (size_t i = 0; i < n; i++) {
        tally_codes(&codes, x[i], got[i], want[i]);
        tally_floats(&numbers, "rounded", i, fp8_round(x[i]), values[want[i]]);
    }
    for (unsigned i = 0; i < 256; i++) {
        all[i] = (uint8_t)i;
    }
    k->fp8_decode(all, back, 256);
    for (size_t i = 0; i < 256; i++) {
        tally_floats(&numbers, "code", i, back[i], values[i]);
    }
    note(v, "E4M3 codes", k->name, &codes);
    note(v, "E4M3 numbers", k->name, &numbers);
    free(want), free(got), free(values);
}

static void check_e5m6(struct vectors *v, const struct kernels *k, const float *x, size_t n)
{
    enum { CODES = 4096 };
    uint16_t *want = vectors_bytes(v, "e5m6", n, 2), *got = mem_alloc_array(n, 2);
    float *values = vectors_floats(v, "e5m6_values", CODES);
    static float back[CODES];
    static uint16_t all[CODES];
    struct tally codes = {0}, numbers = {0};
    k->e5m6_encode(x, got, n);
    for (size_t i = 0; i < n; i++) {
        tally_codes(&codes, x[i], got[i], want[i]);
        tally_floats(&numbers, "rounded", i, e5m6_round(x[i]), values[want[i]]);
    }
    for (unsigned i = 0; i < CODES; i++) {
        all[i] = (uint16_t)i;
    }
    k->e5m6_decode(all, back, CODES);
    for (size_t i = 0; i < CODES; i++) {
        tally_floats(&numbers, "code", i, back[i], values[i]);
    }
    note(v, "E5M6 codes", k->name, &codes);
    note(v, "E5M6 numbers", k->name, &numbers);
    free(want), free(got), free(values);
}

static void check_bf16(struct vectors *v, const struct kernels *k, float *x, size_t n)
{
    float *want = vectors_floats(v, "bf16", n), *got = mem_alloc_array(n, sizeof *got);
    struct tally numbers = {0};
    k->bf16(&(struct quantise_args){mat_of(x, 1, n), mat_of(got, 1, n)}, 0, 1);
    for (size_t i = 0; i < n; i++) {
        tally_floats(&numbers, "rounded", i, got[i], want[i]);
    }
    note(v, "BF16 numbers", k->name, &numbers);
    free(want), free(got);
}

static void check_codes(struct vectors *v)
{
    size_t n = vectors_dimension(v, "x", 0);
    float *x = vectors_floats(v, "x", n);
    EACH_KERNELS(k)
    {
        check_e4m3(v, k, x, n);
        check_e5m6(v, k, x, n);
        check_bf16(v, k, x, n);
    }
    free(x);
}

/* ---- tiles */

struct grid_case {
    const char *name;
    size_t rows, cols; /* of a tile */
    bool e5m6;
    size_t kernel;     /* offset of the kernel in struct kernels */
    size_t items_from; /* what the kernel's items are: 0 rows, 1 columns, 128 blocks of rows */
};
#define KERNEL(k) offsetof(struct kernels, k)
static const struct grid_case grids[] = {
    {"fp8_row", 1, 128, false, KERNEL(fp8_row), 0},
    {"fp8_row_pow2", 1, 128, false, KERNEL(fp8_row_pow2), 0},
    {"fp8_col", 128, 1, false, KERNEL(fp8_col), 1},
    {"fp8_col_pow2", 128, 1, false, KERNEL(fp8_col_pow2), 1},
    {"fp8_block", 128, 128, false, KERNEL(fp8_block), 128},
    {"e5m6_row", 1, 128, true, KERNEL(e5m6_row), 0},
    {"e5m6_col", 128, 1, true, KERNEL(e5m6_col), 1},
};

/* code * scale, of the vectors' codes and scales. */
static float *wanted(const struct vectors *v, const struct grid_case *g, size_t rows, size_t cols)
{
    size_t across = (cols + g->cols - 1) / g->cols, down = (rows + g->rows - 1) / g->rows;
    char name[64];
    snprintf(name, sizeof name, "%s.scale", g->name);
    float *scale = vectors_floats(v, name, across * down);
    float *out = mem_alloc_array(rows * cols, sizeof *out);
    void *codes = vectors_bytes(v, g->name, rows * cols, g->e5m6 ? 2 : 1);
    for (size_t i = 0; i < rows * cols; i++) {
        float value =
            g->e5m6 ? e5m6_decode(((uint16_t *)codes)[i]) : fp8_decode(((uint8_t *)codes)[i]);
        out[i] = value * scale[i / cols / g->rows * across + i % cols / g->cols];
    }
    free(scale), free(codes);
    return out;
}

static void check_grid(struct vectors *v, const struct grid_case *g, struct mat x)
{
    float *want = wanted(v, g, x.rows, x.cols);
    size_t items = g->items_from == 0   ? x.rows
                   : g->items_from == 1 ? x.cols
                                        : (x.rows + g->items_from - 1) / g->items_from;
    EACH_KERNELS(k)
    {
        struct mat y = mat_of(mem_alloc_array(x.rows * x.cols, sizeof(float)), x.rows, x.cols);
        kernel *fn;
        memcpy(&fn, (const char *)k + g->kernel, sizeof(kernel *));
        fn(&(struct quantise_args){x, y}, 0, items);
        struct tally numbers = {0};
        for (size_t i = 0; i < x.rows * x.cols; i++) {
            tally_floats(&numbers, "element", i, y.data[i], want[i]);
        }
        note(v, g->name, k->name, &numbers);
        free(y.data);
    }
    free(want);
}

static void check_tiles(struct vectors *v)
{
    size_t rows = vectors_dimension(v, "x", 0), cols = vectors_dimension(v, "x", 1);
    struct mat x = mat_of(vectors_floats(v, "x", rows * cols), rows, cols);
    int checked = 0;
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++) {
        if (safetensors_find(&v->file, grids[i].name) != NULL) {
            check_grid(v, &grids[i], x);
            checked++;
        }
    }
    assert_true(checked > 0);
    free(x.data);
}

/* ---- products */

static void note_product(struct vectors *v, const char *name, const char *what, const float *got,
                         size_t n)
{
    double *want = vectors_bytes(v, name, n, sizeof *want), error = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        error += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        norm += want[i] * want[i];
    }
    vectors_note(v, what, sqrt(error / norm), PRODUCT_TOLERANCE, "");
    free(want);
}

static struct mat matrix(const struct vectors *v, const char *name)
{
    size_t rows = vectors_dimension(v, name, 0), cols = vectors_dimension(v, name, 1);
    return mat_of(vectors_floats(v, name, rows * cols), rows, cols);
}

static struct mat new_mat(size_t rows, size_t cols)
{
    return mat_of(mem_alloc_array(rows * cols, sizeof(float)), rows, cols);
}

/* Fprop, Dgrad and Wgrad of a Linear as the recipe has them. */
static void check_product(struct vectors *v)
{
    const struct op_table *op = op_cpu(1);
    struct mat x = matrix(v, "x"), w = matrix(v, "w"), dy = matrix(v, "dy");
    size_t offset[2] = {0, x.rows};
    struct op_groups all = {1, offset};
    struct mat y = new_mat(x.rows, w.rows), dx = new_mat(x.rows, x.cols);
    struct mat dw = new_mat(w.rows, w.cols), dy_row = new_mat(dy.rows, dy.cols);
    memset(dw.data, 0, w.rows * w.cols * sizeof(float));
    op->quantise(OP_FP8_ROW, all, x, x);
    op->quantise(OP_FP8_BLOCK, all, w, w);
    op->linear(all, x, w.data, y);
    note_product(v, "y", "x w^T", y.data, y.rows * y.cols);
    op->quantise(OP_FP8_ROW, all, dy, dy_row);
    op->linear_dx(all, dy_row, w.data, dx, false);
    note_product(v, "dx", "dy w", dx.data, dx.rows * dx.cols);
    op->quantise(OP_FP8_COL, all, dy, dy);
    op->quantise(OP_FP8_COL, all, x, x);
    op->linear_dw(all, dy, x, 1.0f, dw.data);
    note_product(v, "dw", "dy^T x", dw.data, dw.rows * dw.cols);
    free(x.data), free(w.data), free(dy.data), free(y.data), free(dx.data), free(dw.data);
    free(dy_row.data);
}

static void check_file(struct vectors *v)
{
    const char *kind = vectors_text(v, "kind");
    if (strcmp(kind, "codes") == 0) {
        check_codes(v);
    } else if (strcmp(kind, "tiles") == 0) {
        check_tiles(v);
    } else {
        assert_string_equal(kind, "product");
        check_product(v);
    }
}

/* Every code, number and tile agrees to the bit, and products to FP32 rounding. */
static void test_agrees(void **state)
{
    (void)state;
    vectors_each("grid", check_file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_agrees)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
