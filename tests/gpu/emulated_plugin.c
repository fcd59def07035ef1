/* A dsop_cuda.so whose kernels run on the CPU (emulate.hh) and whose "device memory" can be touched
 * by nobody else: it is one range of addresses, unmapped but while an op runs. So a trainer that
 * works on it uses the seam alone. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "trainer/cuda/no_memory.h"
#include "trainer/cuda/ops.h"
#include "trainer/cuda/state.h"
#include "trainer/op_plugin.h"

#define MEMORY ((size_t)4 << 30) /* addresses; pages come when they are touched */

struct cuda_state cuda_state;
static char *memory;
static size_t used;

void state_check(int code, const char *what)
{
    if (code != 0) {
        fprintf(stderr, "%s: %d\n", what, code);
        abort();
    }
}

static void allow(int what)
{
    if (used > 0 && mprotect(memory, used, what) != 0) {
        perror("mprotect");
        abort();
    }
}

/* What the stand-in for a GPU has: EMULATED_MEMORY in bytes, or all of the addresses. */
static size_t size(void)
{
    const char *given = getenv("EMULATED_MEMORY");
    size_t bytes = given != NULL ? strtoull(given, NULL, 10) : MEMORY;
    return bytes < MEMORY ? bytes : MEMORY;
}

static void *take(size_t bytes)
{
    size_t rounded = (bytes + 4095) / 4096 * 4096, all = size();
    if (memory == NULL) {
        memory = mmap(NULL, MEMORY, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    if (memory == MAP_FAILED) {
        perror("mmap");
        abort();
    }
    size_t left = all > used ? all - used : 0;
    if (left < rounded + 4096) {
        no_memory(bytes, left, all);
    }
    used += rounded + 4096; /* a gap */
    return memory + used - rounded - 4096;
}

static void release(void *p)
{
    (void)p; /* the run is short */
}

/* A checkpoint is copied by a thread of its own while the step goes on. */
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

static void begin(void)
{
    pthread_mutex_lock(&turn);
    allow(PROT_READ | PROT_WRITE);
}

static void end(void)
{
    allow(PROT_NONE);
    pthread_mutex_unlock(&turn);
}

/* name of the table, parameters, arguments */
#define OP(name, parameters, arguments)                                                            \
    static void on_##name parameters                                                               \
    {                                                                                              \
        begin();                                                                                   \
        cuda_ops.name arguments;                                                                   \
        end();                                                                                     \
    }

OP(copy_to_host, (void *host, const void *p, size_t bytes), (host, p, bytes))
OP(copy_from_host, (void *p, const void *host, size_t bytes), (p, host, bytes))
OP(scale, (float *x, float factor, size_t count), (x, factor, count))
OP(adamw,
   (float *weight, float *m, float *v, const float *grad, size_t count, float grad_scale, float lr,
    double beta1, double beta2, float eps, float weight_decay, float correction1,
    float correction2),
   (weight, m, v, grad, count, grad_scale, lr, beta1, beta2, eps, weight_decay, correction1,
    correction2))
OP(copy, (struct mat x, struct mat y), (x, y))
OP(zero, (struct mat y), (y))
OP(add, (struct mat x, struct mat y, struct mat out), (x, y, out))
OP(quantise, (enum op_format format, struct op_groups groups, struct mat x, struct mat y),
   (format, groups, x, y))
OP(linear, (struct op_groups groups, struct mat x, const float *w, struct mat y), (groups, x, w, y))
OP(linear_dx, (struct op_groups groups, struct mat dy, const float *w, struct mat dx, bool more),
   (groups, dy, w, dx, more))
OP(linear_dw, (struct op_groups groups, struct mat dy, struct mat x, float alpha, float *dw),
   (groups, dy, x, alpha, dw))
OP(embed, (const int32_t *token, const float *table, struct mat y), (token, table, y))
OP(embed_backward, (const int32_t *token, struct mat dy, float alpha, float *dtable),
   (token, dy, alpha, dtable))
OP(rmsnorm, (struct mat x, const float *w, float eps, struct mat y, float *rstd),
   (x, w, eps, y, rstd))
OP(rmsnorm_backward,
   (struct mat x, const float *w, const float *rstd, struct mat dy, struct mat dx, bool more,
    float alpha, float *dw),
   (x, w, rstd, dy, dx, more, alpha, dw))
OP(rope,
   (struct op_heads x, size_t rows, size_t seq, size_t heads, size_t dim, const float *table,
    bool inverse),
   (x, rows, seq, heads, dim, table, inverse))
OP(keys,
   (struct op_heads nope, size_t nope_dim, struct mat shared, size_t heads, struct op_heads k),
   (nope, nope_dim, shared, heads, k))
OP(keys_backward,
   (struct op_heads dk, size_t heads, struct op_heads dnope, size_t nope_dim, struct mat dshared),
   (dk, heads, dnope, nope_dim, dshared))
OP(attention,
   (const struct op_attention *a, struct op_heads q, struct op_heads k, struct op_heads v,
    struct op_heads out, float *lse, float *scratch),
   (a, q, k, v, out, lse, scratch))
OP(attention_backward,
   (const struct op_attention *a, struct op_heads q, struct op_heads k, struct op_heads v,
    struct op_heads out, const float *lse, struct op_heads dout, struct op_heads dq,
    struct op_heads dk, struct op_heads dv, float *scratch),
   (a, q, k, v, out, lse, dout, dq, dk, dv, scratch))
OP(swiglu, (struct mat gu, struct mat out), (gu, out))
OP(swiglu_backward, (struct mat gu, struct mat dout, struct mat dgu, struct mat out),
   (gu, dout, dgu, out))
OP(router,
   (const struct op_router *r, struct mat logits, const float *bias, struct mat scores,
    int32_t *expert, float *weight),
   (r, logits, bias, scores, expert, weight))
OP(router_backward,
   (const struct op_router *r, struct mat scores, const int32_t *expert, const float *dweight,
    size_t seq, float balance_scale, const float *fraction, struct mat dlogits),
   (r, scores, expert, dweight, seq, balance_scale, fraction, dlogits))
OP(balance,
   (const struct op_router *r, struct mat scores, size_t seq, float *fraction, float *loss),
   (r, scores, seq, fraction, loss))
OP(gather, (struct mat x, const uint32_t *index, struct mat y), (x, index, y))
OP(combine,
   (struct mat y, const uint32_t *place, const float *weight, size_t top_k, struct mat out),
   (y, place, weight, top_k, out))
OP(combine_backward,
   (struct mat dout, struct mat y, const uint32_t *place, const float *weight, size_t top_k,
    struct mat dy, float *dweight),
   (dout, y, place, weight, top_k, dy, dweight))
OP(cross_entropy, (struct mat logits, const int32_t *target, float factor, float *loss),
   (logits, target, factor, loss))

static double on_sum_squares(const float *x, size_t count)
{
    begin();
    double sum = cuda_ops.sum_squares(x, count);
    end();
    return sum;
}

static double on_sum(const float *x, size_t count)
{
    begin();
    double sum = cuda_ops.sum(x, count);
    end();
    return sum;
}

static struct op_table table;

static int look(uint32_t ranks, struct err *err)
{
    (void)ranks, (void)err;
    return 0;
}

static int start(uint32_t device, const char *plan, const struct op_table **op, struct err *err)
{
    static double partial[STATE_PARTIALS], sums[1];
    (void)device, (void)err;
    no_memory_plan(plan);
    cuda_state.partial = partial;
    cuda_state.sums = sums;
    cuda_state.multiprocessors = 4;
    table = cuda_ops; /* attention_scratch, which is arithmetic, stays */
    table.alloc = take;
    table.release = release;
    table.sum_squares = on_sum_squares;
    table.sum = on_sum;
#define USE(name) table.name = on_##name
    USE(copy_to_host), USE(copy_from_host), USE(scale), USE(adamw), USE(copy), USE(zero), USE(add);
    USE(quantise), USE(linear), USE(linear_dx), USE(linear_dw), USE(embed), USE(embed_backward);
    USE(rmsnorm), USE(rmsnorm_backward), USE(rope), USE(keys), USE(keys_backward), USE(attention);
    USE(attention_backward), USE(swiglu), USE(swiglu_backward), USE(router), USE(router_backward);
    USE(balance), USE(gather), USE(combine), USE(combine_backward), USE(cross_entropy);
    *op = &table;
    return 0;
}

static const struct op_plugin plugin = {
    .abi = OP_PLUGIN_ABI,
    .table_bytes = sizeof(struct op_table),
    .built = "emulated",
    .check = look,
    .open = start,
};

__attribute__((visibility("default"))) const struct op_plugin *dsop_plugin(void);

const struct op_plugin *dsop_plugin(void)
{
    return &plugin;
}
