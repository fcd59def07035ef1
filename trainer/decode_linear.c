#include "trainer/decode_layer.h"

#include "trainer/cpu/cpu.h"
#include "trainer/cpu/pool.h"

#define SHARES    4     /* of the work, for each thread */
#define ALONE_MAX 32768 /* multiplications that are done before another thread would have woken */

struct job {
    const struct product *product;
    size_t count, shares;
};

static void share(void *ctx, size_t task, size_t worker)
{
    (void)worker;
    const struct job *j = ctx;
    for (size_t i = 0; i < j->count; i++) {
        const struct product *p = &j->product[i];
        size_t n = p->x.cols, outputs = p->y.cols;
        size_t from = outputs * task / j->shares, to = outputs * (task + 1) / j->shares;
        cpu_kernels->products(p->x.data, p->x.ld, p->x.rows, p->w + from * n, n, to - from,
                              p->y.data + from, p->y.ld);
    }
}

void decode_products(const struct product *product, size_t count)
{
    size_t threads = (size_t)pool_threads(), work = 0;
    for (size_t i = 0; i < count; i++) {
        work += product[i].x.rows * product[i].x.cols * product[i].y.cols;
    }
    bool alone = threads == 1 || work < ALONE_MAX;
    struct job job = {product, count, alone ? 1 : threads * SHARES};
    pool_run(share, &job, job.shares);
}

void decode_linear(struct mat x, const float *w, struct mat y)
{
    decode_products(&(struct product){x, w, y}, 1);
}
