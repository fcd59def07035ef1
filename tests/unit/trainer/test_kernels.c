/* Every instruction set gives the same bits as the portable loops, for every kernel. (FP8 and BF16:
 * test_fp8.c) */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/trainer/op_fixture.h"
#include "trainer/cpu/kernels.h"

struct packing {
    enum op_format format;
    kernel *quantise, *pack, *unpack;
};

/* Numbers of a grid survive as codes, whatever their size: tiny, huge, zero of either sign, of
 * ragged tiles, not a number. The codes are left in `out`. */
static void check_packing(const struct packing *p, struct mat x, struct mat out)
{
    struct mat y = mat_of(calloc(x.rows * x.cols, sizeof(float)), x.rows, x.cols);
    p->quantise(&(struct quantise_args){x, x}, 0, x.rows);
    p->pack(&(struct quantise_args){x, out}, 0, x.rows);
    p->unpack(&(struct quantise_args){out, y}, 0, x.rows);
    for (size_t i = 0; i < x.rows * x.cols; i++) {
        if (isnan(x.data[i]) ? !isnan(y.data[i])
                             : memcmp(&x.data[i], &y.data[i], sizeof(float)) != 0) {
            fail_msg("format %d, %zu columns: %a became %a", p->format, x.cols, (double)x.data[i],
                     (double)y.data[i]);
        }
    }
    free(y.data);
}

static void test_packing(void **state)
{
    (void)state;
    for (int trial = 0; trial < 300; trial++) {
        size_t cols = 1 + random_below(300), rows = 3;
        double size = pow(10, uniform(-9, 9));
        float *numbers = malloc(rows * cols * sizeof *numbers);
        for (size_t i = 0; i < rows * cols; i++) {
            numbers[i] = (float)(size * uniform(-1, 1) * pow(2, -uniform(0, 12)));
            numbers[i] = random_one_in(20) ? (random_one_in(2) ? 0.0f : -0.0f) : numbers[i];
        }
        if (random_one_in(10)) {
            numbers[random_below(rows * cols)] = random_one_in(2) ? NAN : INFINITY;
        }
        uint8_t *first[4] = {NULL};
        for (size_t i = 0; kernels_at(i) != NULL; i++) {
            const struct kernels *k = kernels_at(i);
            const struct packing packing[] = {
                {OP_BF16, k->bf16, k->pack_bf16, k->unpack_bf16},
                {OP_FP8_ROW, k->fp8_row, k->pack_fp8, k->unpack_fp8},
                {OP_FP8_ROW_POW2, k->fp8_row_pow2, k->pack_fp8_pow2, k->unpack_fp8_pow2},
                {OP_E5M6_ROW, k->e5m6_row, k->pack_e5m6, k->unpack_e5m6}};
            for (size_t f = 0; f < 4 && k->available(); f++) {
                size_t width = op_packed_cols(packing[f].format, cols);
                size_t bytes = rows * width * sizeof(float);
                struct mat x = mat_of(malloc(rows * cols * sizeof(float)), rows, cols);
                struct mat codes = mat_of(calloc(1, bytes), rows, width);
                memcpy(x.data, numbers, rows * cols * sizeof(float));
                check_packing(&packing[f], x, codes);
                if (first[f] == NULL) {
                    first[f] = malloc(bytes);
                    memcpy(first[f], codes.data, bytes);
                }
                assert_memory_equal(first[f], codes.data, bytes);
                free(x.data), free(codes.data);
            }
        }
        for (size_t f = 0; f < 4; f++) {
            free(first[f]);
        }
        free(numbers);
    }
}

/* Runs everything on inputs drawn from a seed and leaves all results in one matrix. Odd sizes, so
 * that loops have remainders. */
static float *run_all(const struct kernels *k, uint64_t seed, size_t *bytes)
{
    random_state = seed;
    enum { ROWS = 9, SLOTS = 24, TOP = 2 };
    size_t n = 1 + random_below(70), area = ROWS * 160, used = 0;
    float *all = calloc(SLOTS * area, sizeof *all);
#define SLOT(cols) mat_of(all + area * used++, ROWS, cols)
    struct mat x = random_mat(ROWS, n), dy = random_mat(ROWS, n), gu = random_mat(ROWS, 2 * n);
    struct mat y = SLOT(n), dx = SLOT(n), z = SLOT(n), act = SLOT(n), glu = SLOT(n),
               dgu = SLOT(2 * n);
    float *w = random_floats(n, 0.5, 1.5);
    struct mat rstd = SLOT(1), dw = SLOT(n), loss = SLOT(1), lse = SLOT(1), sums = SLOT(4);

    k->norm(&(struct norm_args){x, y, w, rstd.data, 1e-6f}, 0, ROWS);
    struct norm_backward_args back = {x, dy, dx, w, rstd.data, dw.data, 0.5f, true};
    k->norm_dx(&back, 0, ROWS);
    k->norm_dw(&back, 0, n);
    k->add(&(struct add_args){x, dy, z}, 0, ROWS);
    k->sigmoid(&(struct quantise_args){x, act}, 0, ROWS);
    k->swiglu(&(struct swiglu_args){.gu = gu, .out = glu}, 0, ROWS);
    k->swiglu_backward(&(struct swiglu_args){gu, glu, dy, dgu}, 0, ROWS);

    struct mat logits = SLOT(n), s = SLOT(ROWS + 4), ds = SLOT(ROWS + 4), p = SLOT(ROWS + 4);
    struct mat mixed = SLOT(n), dmix = SLOT(n), dweight = SLOT(TOP), embedded = SLOT(n);
    int32_t target[ROWS];
    uint32_t place[ROWS * TOP];
    for (size_t r = 0; r < ROWS; r++) {
        target[r] = (int32_t)random_below(n < ROWS ? n : ROWS);
        place[r * TOP] = (uint32_t)random_below(ROWS);
        place[r * TOP + 1] = (uint32_t)random_below(ROWS);
        memcpy(logits.data + r * n, x.data + r * x.ld, n * sizeof(float));
    }
    k->cross_entropy(&(struct loss_args){logits, target, 0.5f, loss.data}, 0, ROWS);
    for (size_t i = 0; i < ROWS * (ROWS + 4); i++) {
        s.data[i] = p.data[i] = (float)uniform(-9, 9);
        ds.data[i] = (float)uniform(-1, 1);
    }
    struct scores_args score = {s, ds, 4, lse.data, rstd.data, 0.7f, random_one_in(2)};
    k->softmax(&score, 0, ROWS);
    score.s = p;
    k->probabilities(&score, 0, ROWS);
    k->score_gradient(&score, 0, ROWS);
    float *weight = random_floats(ROWS * TOP, -1, 1);
    k->combine(
        &(struct combine_args){
            .y = x, .out = mixed, .place = place, .weight = weight, .top_k = TOP},
        0, ROWS);
    k->combine_backward(&(struct combine_args){x, dy, place, weight, TOP, dmix, dweight.data}, 0,
                        ROWS);
    k->embed_backward(&(struct embed_args){target, dy, 0.3f, embedded.data}, 0, n);
    sums.data[0] = (float)k->sum(x.data, ROWS * n);
    sums.data[1] = (float)k->sum_squares(x.data, ROWS * n);
    sums.data[2] = k->dot(x.data, dy.data, ROWS * n);

    struct mat m = SLOT(n), v = SLOT(n);
    k->adamw(&(struct adamw_args){z.data, m.data, v.data, x.data, 0.5f, 1e-2f, 0.9f, 0.95f, 1e-8f,
                                  0.1f, 0.1f, 0.05f},
             0, ROWS * n);
    k->scale(act.data, 1.7f, ROWS * n);
    assert_true(used <= SLOTS);
    *bytes = SLOTS * area * sizeof *all;
    free(x.data), free(dy.data), free(gu.data), free(w), free(weight);
    return all;
}

static void test_same_bits(void **state)
{
    (void)state;
    int others = 0;
    uint64_t seed = random_state;
    for (uint64_t trial = 0; trial < 200; trial++) {
        size_t bytes;
        float *wanted = run_all(kernels_at(0), seed + trial, &bytes);
        for (size_t i = 1; kernels_at(i) != NULL; i++) {
            if (!kernels_at(i)->available()) {
                continue;
            }
            float *got = run_all(kernels_at(i), seed + trial, &bytes);
            others++;
            if (memcmp(got, wanted, bytes) != 0) {
                fail_msg("%s differs from %s", kernels_at(i)->name, kernels_at(0)->name);
            }
            free(got);
        }
        free(wanted);
    }
    printf("  compared %d runs; in use: %s\n", others, kernels_best()->name);
}

/* exp is good to 2 units in the last place within its range, and the same bits everywhere. */
static void test_exp(void **state)
{
    (void)state;
    enum { N = 100001 };
    float *x = random_floats(N, -87, 88), *y = malloc(N * sizeof *y),
          *first = malloc(N * sizeof *first);
    for (size_t i = 0; kernels_at(i) != NULL; i++) {
        if (!kernels_at(i)->available()) {
            continue;
        }
        kernels_at(i)->exp(x, y, N);
        for (size_t j = 0; j < N; j++) {
            double e = exp((double)x[j]);
            assert_true(fabs((double)y[j] - e) < 2.4e-7 * e);
        }
        if (i == 0) {
            memcpy(first, y, N * sizeof *y);
        }
        assert_memory_equal(y, first, N * sizeof *y);
    }
    float special[] = {0, 1000, -1000, INFINITY, -INFINITY, NAN}, out[6];
    kernels_best()->exp(special, out, 6);
    assert_true(out[0] == 1 && isfinite(out[1]) && out[2] >= 0 && out[2] < 1e-37f &&
                isfinite(out[3]));
    assert_true(out[4] < 1e-37f && isnan(out[5]));
    free(x), free(y), free(first);
}

/* Products and weighted sums have the bits of one row and one column at a time. */
static void test_decoding(void **state)
{
    (void)state;
    enum { ROWS = 5, MOST = 150 };
    for (int trial = 0; trial < 300; trial++) {
        size_t n = 1 + random_next() % MOST, outputs = random_next() % 11,
               rows = random_next() % (ROWS + 1);
        size_t ld = n + random_next() % 3, ld_y = outputs + 1;
        float *x = random_floats(ROWS * (MOST + 3), -2, 2), *w = random_floats(MOST * 11, -2, 2);
        for (size_t i = 0; kernels_at(i) != NULL; i++) {
            const struct kernels *k = kernels_at(i);
            float y[ROWS * 12], sum[MOST];
            if (!k->available()) {
                continue;
            }
            for (size_t j = 0; j < ROWS * 12; j++) {
                y[j] = -7;
            }
            k->products(x, ld, rows, w, n, outputs, y, ld_y);
            for (size_t r = 0; r < ROWS; r++) {
                for (size_t o = 0; o < ld_y && r * ld_y + o < ROWS * 12; o++) {
                    bool inside = r < rows && o < outputs;
                    float want = inside ? kernels_at(0)->dot(x + r * ld, w + o * n, n) : -7;
                    assert_memory_equal(&y[r * ld_y + o], &want, sizeof want);
                }
            }
            k->weighted_sum(w, rows, x, ld, n, sum);
            for (size_t c = 0; c < n; c++) {
                float want = 0;
                for (size_t r = 0; r < rows; r++) {
                    want += w[r] * x[r * ld + c];
                }
                assert_memory_equal(&sum[c], &want, sizeof want);
            }
        }
        free(x), free(w);
    }
}

int main(void)
{
    random_start("test_kernels");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packing),
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_exp),
        cmocka_unit_test(test_decoding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
