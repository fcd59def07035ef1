#include "tests/gpu/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "tests/unit/random.h"
#include "trainer/half.h"

#define POISON 0x7FC0DEADu /* a NaN that nothing computes */

struct check check;

static void result(const char *what, bool ok, const char *why)
{
    check.passed += ok;
    check.failed += !ok;
    if (!ok) {
        printf("FAILED %s: %s\n", what, why);
    }
}

void check_true(const char *what, bool ok)
{
    result(what, ok, "not so");
}

void check_bytes(const char *what, const void *got, const void *wanted, size_t bytes)
{
    char why[96];
    const unsigned char *a = got, *b = wanted;
    size_t differ = 0, first = 0;
    for (size_t i = 0; i < bytes; i++) {
        first = differ == 0 && a[i] != b[i] ? i : first;
        differ += a[i] != b[i];
    }
    snprintf(why, sizeof why, "%zu of %zu bytes differ, the first is number %zu", differ, bytes,
             first);
    result(what, differ == 0, why);
}

/* The relative L2 error; NaN when anything is. */
static double error_of(const float *got, const float *wanted, size_t count)
{
    double apart = 0, all = 0;
    for (size_t i = 0; i < count; i++) {
        double d = (double)got[i] - (double)wanted[i];
        apart += d * d;
        all += (double)wanted[i] * (double)wanted[i];
    }
    return apart == 0 ? 0 : sqrt(apart / all);
}

void check_floats(const char *what, const float *got, const float *wanted, size_t count,
                  double bound)
{
    char why[96];
    if (bound == 0) {
        check_bytes(what, got, wanted, count * sizeof *got);
        return;
    }
    double error = error_of(got, wanted, count);
    snprintf(why, sizeof why, "relative error %.2e of %zu numbers, allowed %.0e", error, count,
             bound);
    result(what, error <= bound, why);
}

void check_start(const char *program)
{
    random_start(program);
}

size_t check_below(size_t limit)
{
    return (size_t)random_below(limit);
}

size_t check_size(size_t small, size_t large)
{
    return 1 + check_below(check.large && check_below(3) == 0 ? large : small);
}

float check_normal(void)
{
    double u = ((double)random_below(1u << 30) + 1) / (1u << 30);
    double v = (double)random_below(1u << 30) / (1u << 30);
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

size_t check_offsets(size_t *offset, size_t groups, size_t rows_most)
{
    offset[0] = 0;
    for (size_t g = 0; g < groups; g++) {
        size_t rows = check_below(3) == 0 ? 0 : check_below(rows_most + 1);
        offset[g + 1] = offset[g] + rows;
    }
    return offset[groups];
}

/* ---- matrices */

static struct pair pair_make(size_t rows, size_t cols, size_t ld)
{
    struct pair p = {.floats = rows * ld};
    float *host = mem_alloc_array(p.floats, sizeof *host);
    for (size_t i = 0; i < p.floats; i++) {
        host[i] = float_of_bits(POISON);
    }
    p.cpu = (struct mat){host, rows, cols, ld};
    p.gpu = (struct mat){check.gpu->alloc(p.floats * sizeof(float)), rows, cols, ld};
    return p;
}

static void push(struct pair p)
{
    check.gpu->copy_from_host(p.gpu.data, p.cpu.data, p.floats * sizeof(float));
}

static struct pair pair_filled(size_t rows, size_t cols, size_t ld)
{
    struct pair p = pair_make(rows, cols, ld);
    for (size_t i = 0; i < rows * cols; i++) {
        p.cpu.data[i / cols * ld + i % cols] = check_normal();
    }
    push(p);
    return p;
}

struct pair pair_random(size_t rows, size_t cols)
{
    return pair_filled(rows, cols, cols + check_below(6));
}

struct pair pair_dense(size_t rows, size_t cols)
{
    return pair_filled(rows, cols, cols);
}

struct pair pair_poisoned(size_t rows, size_t cols)
{
    struct pair p = pair_make(rows, cols, cols + check_below(6));
    push(p);
    return p;
}

void pair_check(const char *what, struct pair p, double bound)
{
    float *got = download(p.gpu.data, p.floats * sizeof *got);
    size_t cells = p.cpu.rows * p.cpu.cols;
    float *a = mem_alloc_array(cells, sizeof *a), *b = mem_alloc_array(cells, sizeof *b);
    bool gaps = true;
    for (size_t i = 0; i < p.floats; i++) {
        size_t row = i / p.cpu.ld, col = i % p.cpu.ld;
        if (col < p.cpu.cols) {
            a[row * p.cpu.cols + col] = got[i];
            b[row * p.cpu.cols + col] = p.cpu.data[i];
        } else {
            gaps = gaps && float_bits(got[i]) == POISON;
        }
    }
    check_floats(what, a, b, cells, bound);
    if (!gaps) {
        result(what, false, "wrote between the rows");
    }
    free(got);
    free(a);
    free(b);
}

void pair_free(struct pair *p)
{
    free(p->cpu.data);
    check.gpu->release(p->gpu.data);
}

void *upload(const void *host, size_t bytes)
{
    void *p = check.gpu->alloc(bytes);
    check.gpu->copy_from_host(p, host, bytes);
    return p;
}

void *poisoned(size_t bytes)
{
    unsigned char *host = mem_alloc(bytes);
    memset(host, 0xA5, bytes);
    void *p = upload(host, bytes);
    free(host);
    return p;
}

void *download(const void *device, size_t bytes)
{
    void *host = mem_alloc(bytes);
    check.gpu->copy_to_host(host, device, bytes);
    return host;
}

void fill_bf16(uint16_t *x, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        x[i] = bf16_encode(check_normal());
    }
}
