/* COMMUNICATOR SEAM. A group of ranks. Calls are collective within the group and in the same order
 * on each rank; host memory; every blocking call has the group's time-out and returns ERR_COMM when
 * a peer is lost: the process then ends with 85 and the coordinator recovers. Reductions add in an
 * order that depends only on the group's size, so results are reproducible to the bit. */
#ifndef TRAINER_COMM_H
#define TRAINER_COMM_H

#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

struct comm;

struct comm_ops {
    const char *name; /* "self", "gloo", later "nccl" */
    int (*all_reduce_sum_f32)(struct comm *c, float *data, size_t count, struct err *err);
    int (*all_reduce_sum_f64)(struct comm *c, double *data, size_t count, struct err *err);
    int (*all_reduce_sum_u64)(struct comm *c, uint64_t *data, size_t count, struct err *err);
    /* The sums of elements [first[r], first[r + 1]) come to rank r, in place; others are undefined
     * afterwards. first: [size + 1], from 0, rising, the same on all. Bit for bit the numbers of
     * all_reduce_sum_f32. */
    int (*reduce_scatter_sum_f32)(struct comm *c, float *data, const size_t *first,
                                  struct err *err);
    /* each rank gives `bytes`; out receives size * bytes, by rank; in may be its place there */
    int (*all_gather)(struct comm *c, const void *in, void *out, size_t bytes, struct err *err);
    /* send_bytes[r] to rank r from consecutive places in `in`; recv_bytes[r] from rank r likewise
     * into out. Zero counts are fine. */
    int (*all_to_all_v)(struct comm *c, const void *in, const size_t *send_bytes, void *out,
                        const size_t *recv_bytes, struct err *err);
    int (*broadcast)(struct comm *c, void *data, size_t bytes, uint32_t root, struct err *err);
    int (*barrier)(struct comm *c, struct err *err);
    /* Point to point. Messages from one rank to another on one channel (a small number) arrive in
     * the order they were sent and all have the same size; channels are independent. send returns
     * when data may be changed, and does not wait for the receiver unless very many messages of
     * that channel wait for him. What arrives is taken in before it is asked for. NULL in groups
     * that are made for collectives. */
    int (*send)(struct comm *c, uint32_t to, uint32_t channel, const void *data, size_t bytes,
                struct err *err);
    int (*recv)(struct comm *c, uint32_t from, uint32_t channel, void *data, size_t bytes,
                struct err *err);
    void (*destroy)(struct comm *c);
};
/* Implementations embed this as their first member. */
struct comm {
    const struct comm_ops *ops;
    uint32_t rank, size; /* within the group */
};

/* One rank alone. */
struct comm *comm_self_create(void);

/* How ranks find each other: a blocking key-value store (the worker's, by way of proto/reporter.h).
 */
struct comm_store {
    void *ctx;
    int (*set)(void *ctx, const char *key, const void *value, size_t len, struct err *err);
    /* *value is malloc'd */
    int (*get)(void *ctx, const char *key, int64_t timeout_ms, void **value, size_t *len,
               struct err *err);
};
/* prefix: names the group, unique within the attempt. address: the local address to bind, such as
 * 127.0.0.1. */
int comm_gloo_create(struct comm **c, const struct comm_store *store, const char *prefix,
                     uint32_t rank, uint32_t size, const char *address, int64_t timeout_ms,
                     struct err *err);

/* A group for send and recv alone. */
int comm_gloo_peers_create(struct comm **c, const struct comm_store *store, const char *prefix,
                           uint32_t rank, uint32_t size, const char *address, int64_t timeout_ms,
                           struct err *err);

static inline void comm_destroy(struct comm *c)
{
    if (c != NULL) {
        c->ops->destroy(c);
    }
}

#endif
