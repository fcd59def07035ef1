/* The communicator of one rank alone: every collective is a copy or nothing. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "trainer/comm.h"

static int reduce_f32(struct comm *c, float *data, size_t count, struct err *err)
{
    (void)c, (void)data, (void)count, (void)err;
    return 0;
}

static int reduce_f64(struct comm *c, double *data, size_t count, struct err *err)
{
    (void)c, (void)data, (void)count, (void)err;
    return 0;
}

static int reduce_u64(struct comm *c, uint64_t *data, size_t count, struct err *err)
{
    (void)c, (void)data, (void)count, (void)err;
    return 0;
}

static int reduce_scatter_f32(struct comm *c, float *data, const size_t *first, struct err *err)
{
    (void)c, (void)data, (void)first, (void)err;
    return 0;
}

static int all_gather(struct comm *c, const void *in, void *out, size_t bytes, struct err *err)
{
    (void)c, (void)err;
    if (bytes > 0 && in != out) { /* in its place it may be a GPU's memory */
        memmove(out, in, bytes);
    }
    return 0;
}

static int all_to_all_v(struct comm *c, const void *in, const size_t *send_bytes, void *out,
                        const size_t *recv_bytes, struct err *err)
{
    (void)c, (void)err;
    assert(send_bytes[0] == recv_bytes[0]);
    if (send_bytes[0] > 0) {
        memmove(out, in, send_bytes[0]);
    }
    return 0;
}

static int broadcast(struct comm *c, void *data, size_t bytes, uint32_t root, struct err *err)
{
    (void)c, (void)data, (void)bytes, (void)err;
    assert(root == 0);
    return 0;
}

static int barrier(struct comm *c, struct err *err)
{
    (void)c, (void)err;
    return 0;
}

static void destroy(struct comm *c)
{
    free(c);
}

static const struct comm_ops ops = {
    .name = "self",
    .all_reduce_sum_f32 = reduce_f32,
    .all_reduce_sum_f64 = reduce_f64,
    .all_reduce_sum_u64 = reduce_u64,
    .reduce_scatter_sum_f32 = reduce_scatter_f32,
    .all_gather = all_gather,
    .all_to_all_v = all_to_all_v,
    .broadcast = broadcast,
    .barrier = barrier,
    .destroy = destroy,
};

struct comm *comm_self_create(void)
{
    struct comm *c = mem_alloc(sizeof *c);
    *c = (struct comm){.ops = &ops, .rank = 0, .size = 1};
    return c;
}
