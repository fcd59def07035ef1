/* Products with weights. One group is cut along the longer side of its result, many groups are
 * shared out whole. */
#include "trainer/cpu/blas.h"
#include "trainer/cpu/cpu.h"
#include "trainer/cpu/pool.h"

struct product {
    bool transpose_a, transpose_b;
    size_t m, n, k;
    const float *a, *b;
    size_t lda, ldb, ldc;
    float alpha, beta;
    float *c;
};

typedef struct product product_fn(const void *args, size_t group);

struct job {
    product_fn *product; /* of a group */
    const void *args;
    size_t slices; /* of a group */
};

/* Rows [from, to) of the result, or columns. */
static void run_slice(struct product p, size_t slice, size_t slices)
{
    if (p.m >= p.n) {
        size_t from = p.m * slice / slices, to = p.m * (slice + 1) / slices;
        p.a += p.transpose_a ? from : from * p.lda;
        p.c += from * p.ldc;
        p.m = to - from;
    } else {
        size_t from = p.n * slice / slices, to = p.n * (slice + 1) / slices;
        p.b += p.transpose_b ? from * p.ldb : from;
        p.c += from;
        p.n = to - from;
    }
    if (p.m > 0 && p.n > 0) {
        blas_gemm(p.transpose_a, p.transpose_b, p.m, p.n, p.k, p.alpha, p.a, p.lda, p.b, p.ldb,
                  p.beta, p.c, p.ldc);
    }
}

static void run_task(void *ctx, size_t task, size_t worker)
{
    (void)worker;
    const struct job *job = ctx;
    struct product p = job->product(job->args, task / job->slices);
    if (p.m > 0 && p.k > 0) {
        run_slice(p, task % job->slices, job->slices);
    }
}

static void run_groups(product_fn *product, const void *args, size_t groups)
{
    size_t threads = (size_t)pool_threads();
    struct job job = {product, args, groups >= 2 * threads ? 1 : threads};
    pool_run(run_task, &job, groups * job.slices);
}

struct linear_args {
    struct op_groups groups;
    struct mat x, y; /* [rows, k], [rows, n]; the gradients in the backward passes */
    const float *w;
    float *dw;
    float alpha;
    bool add;
};

static struct product forward(const void *args, size_t g)
{
    const struct linear_args *l = args;
    size_t first = l->groups.offset[g], rows = l->groups.offset[g + 1] - first;
    size_t n = l->y.cols, k = l->x.cols;
    return (struct product){
        false,   true, rows,    n, k, l->x.data + first * l->x.ld, l->w + g * n * k,
        l->x.ld, k,    l->y.ld, 1, 0, l->y.data + first * l->y.ld};
}

static struct product backward_x(const void *args, size_t g)
{
    const struct linear_args *l = args;
    size_t first = l->groups.offset[g], rows = l->groups.offset[g + 1] - first;
    size_t n = l->y.cols, k = l->x.cols;
    return (struct product){false,
                            false,
                            rows,
                            k,
                            n,
                            l->y.data + first * l->y.ld,
                            l->w + g * n * k,
                            l->y.ld,
                            k,
                            l->x.ld,
                            1,
                            l->add ? 1 : 0,
                            l->x.data + first * l->x.ld};
}

static struct product backward_w(const void *args, size_t g)
{
    const struct linear_args *l = args;
    size_t first = l->groups.offset[g], rows = l->groups.offset[g + 1] - first;
    size_t n = l->y.cols, k = l->x.cols;
    return (struct product){true,
                            false,
                            n,
                            k,
                            rows,
                            l->y.data + first * l->y.ld,
                            l->x.data + first * l->x.ld,
                            l->y.ld,
                            l->x.ld,
                            k,
                            l->alpha,
                            1,
                            l->dw + g * n * k};
}

void cpu_linear(struct op_groups groups, struct mat x, const float *w, struct mat y)
{
    struct linear_args args = {.groups = groups, .x = x, .y = y, .w = w};
    run_groups(forward, &args, groups.count);
}

void cpu_linear_dx(struct op_groups groups, struct mat dy, const float *w, struct mat dx, bool add)
{
    struct linear_args args = {.groups = groups, .x = dx, .y = dy, .w = w, .add = add};
    run_groups(backward_x, &args, groups.count);
}

void cpu_linear_dw(struct op_groups groups, struct mat dy, struct mat x, float alpha, float *dw)
{
    struct linear_args args = {.groups = groups, .x = x, .y = dy, .alpha = alpha, .dw = dw};
    run_groups(backward_w, &args, groups.count);
}
