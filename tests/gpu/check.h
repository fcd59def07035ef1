/* Checks of the CUDA back end against the CPU's: fresh random inputs with a printed seed (TEST_SEED
 * repeats it), poisoned outputs, every element compared, also those between the rows, which must
 * stay as they were. The same checks run on a GPU (check_gpu) and on the kernels emulated on the
 * CPU (check_emulated). */
#ifndef TESTS_GPU_CHECK_H
#define TESTS_GPU_CHECK_H

#include "trainer/op.h"

struct check {
    const struct op_table *gpu, *cpu;
    bool large; /* sizes for a GPU as well */
    int passed, failed;
};
extern struct check check;

/* One result: bound on the relative L2 error, 0 for the same bits. NaN never passes. */
void check_floats(const char *what, const float *got, const float *wanted, size_t count,
                  double bound);
void check_bytes(const char *what, const void *got, const void *wanted, size_t bytes);
void check_true(const char *what, bool ok);

/* ---- random numbers */
void check_start(const char *program);
size_t check_below(size_t limit);
size_t check_size(size_t small, size_t large); /* 1 to small, or sometimes to large on a GPU */
float check_normal(void);
/* Rows of the groups, some empty; offset [groups + 1]. Returns the sum. */
size_t check_offsets(size_t *offset, size_t groups, size_t rows_most);

/* ---- a matrix on both sides, in rows that lie further apart than they are long */
struct pair {
    struct mat cpu, gpu;
    size_t floats;
};
struct pair pair_random(size_t rows, size_t cols);
/* Dense: ld is cols. */
struct pair pair_dense(size_t rows, size_t cols);
struct pair pair_poisoned(size_t rows, size_t cols);
void pair_poison(struct pair p);
void pair_check(const char *what, struct pair p, double bound);
void pair_free(struct pair *p);

/* ---- plain memory */
void *upload(const void *host, size_t bytes);     /* to the device, check.gpu->release frees it */
void *poisoned(size_t bytes);                     /* on the device */
void *download(const void *device, size_t bytes); /* free() frees it */
void fill_bf16(uint16_t *x, size_t count);

/* ---- the subjects */
void check_ops(void);
void check_quantise(void);
void check_rows(void);
void check_mixture(void);
void check_grouped(void);
void check_gemm(void);
void check_train(void);

#endif
