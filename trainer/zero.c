#include "trainer/zero.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#include "lib/mem.h"
#include "trainer/overlap.h"

#define BUCKET_BYTES ((size_t)4 << 20) /* at least, but for the last */

struct bucket {
    int kind;
    size_t begin, end; /* elements */
};

/* Buckets on their way to the thread that reduces them. */
struct zero_queue {
    struct overlap *beside;
    bool begun; /* in this step */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct bucket *bucket; /* owned; of this step; under lock, as what follows */
    size_t count, capacity;
    bool closed; /* there will be no more in this step */
};

static void part(struct zero *z, int kind, struct param_range range, struct comm *comm)
{
    assert(range.count % comm->size == 0); /* params_pad */
    z->kind[kind].range = range;
    z->kind[kind].comm = comm;
    z->kind[kind].part = range.count / comm->size;
    z->kind[kind].left = range.count;
}

void zero_init(struct zero *z, struct model *model, bool parted, struct comm *dense,
               struct comm *data)
{
    *z = (struct zero){.parted = parted};
    part(z, 0, model_param_range(model, false), dense);
    part(z, 1, model_param_range(model, true), data);
    if (dense->size > 1 || data->size > 1) {
        z->queue = mem_alloc(sizeof *z->queue);
        *z->queue = (struct zero_queue){.beside = overlap_create()};
        pthread_mutex_init(&z->queue->lock, NULL);
        pthread_cond_init(&z->queue->changed, NULL);
    }
}

static void close_queue(struct zero_queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->closed = true;
    pthread_cond_signal(&q->changed);
    pthread_mutex_unlock(&q->lock);
}

void zero_fini(struct zero *z)
{
    struct zero_queue *q = z->queue;
    if (q != NULL) {
        close_queue(q); /* a step that failed may have left it open */
        overlap_destroy(q->beside);
        pthread_cond_destroy(&q->changed);
        pthread_mutex_destroy(&q->lock);
        free(q->bucket);
        free(q);
    }
    *z = (struct zero){0};
}

void zero_windows(const struct zero *z, struct optim_window windows[2])
{
    for (int i = 0; i < 2; i++) {
        const float *all = z->kind[i].range.weight;
        const float *mine = all + z->kind[i].comm->rank * z->kind[i].part;
        windows[i] = z->parted ? (struct optim_window){mine, mine + z->kind[i].part}
                               : (struct optim_window){all, all + z->kind[i].range.count};
    }
}

/* ---- reduction */

static size_t between(size_t x, size_t low, size_t high)
{
    return x < low ? low : x > high ? high : x;
}

static int reduce(const struct zero *z, const struct bucket *b, struct err *err)
{
    const struct zero_kind *k = &z->kind[b->kind];
    float *grad = k->range.grad + b->begin;
    if (!z->parted) {
        return k->comm->ops->all_reduce_sum_f32(k->comm, grad, b->end - b->begin, err);
    }
    size_t *first = mem_alloc_array(k->comm->size + 1, sizeof *first);
    for (uint32_t r = 0; r <= k->comm->size; r++) {
        first[r] = between(r * k->part, b->begin, b->end) - b->begin;
    }
    int rc = k->comm->ops->reduce_scatter_sum_f32(k->comm, grad, first, err);
    free(first);
    return rc;
}

/* The next bucket; false when there are no more. */
static bool take(struct zero_queue *q, size_t number, struct bucket *b)
{
    pthread_mutex_lock(&q->lock);
    while (number == q->count && !q->closed) {
        pthread_cond_wait(&q->changed, &q->lock);
    }
    bool there = number < q->count;
    if (there) {
        *b = q->bucket[number];
    }
    pthread_mutex_unlock(&q->lock);
    return there;
}

static int reduce_all(void *arg, struct err *err)
{
    const struct zero *z = arg;
    struct bucket b;
    for (size_t i = 0; take(z->queue, i, &b); i++) {
        TRY(reduce(z, &b, err));
    }
    return 0;
}

/* The gradients from `begin` on. */
static void hand_over(struct zero *z, int kind, size_t begin)
{
    struct zero_queue *q = z->queue;
    struct zero_kind *k = &z->kind[kind];
    if (k->comm->size > 1 && begin < k->left) {
        pthread_mutex_lock(&q->lock);
        mem_grow((void **)&q->bucket, &q->capacity, q->count + 1, sizeof *q->bucket);
        q->bucket[q->count++] = (struct bucket){kind, begin, k->left};
        pthread_cond_signal(&q->changed);
        pthread_mutex_unlock(&q->lock);
    }
    k->left = begin;
}

void zero_final(void *zero, const float *dense, const float *expert)
{
    struct zero *z = zero;
    const float *place[2] = {dense, expert};
    if (z->queue == NULL || !overlap_is_threaded(z->queue->beside)) {
        return;
    }
    if (!z->queue->begun) {
        z->queue->begun = true;
        overlap_start(z->queue->beside, reduce_all, z);
    }
    for (int i = 0; i < 2; i++) {
        size_t begin = (size_t)(place[i] - z->kind[i].range.grad);
        if ((z->kind[i].left - begin) * sizeof(float) >= BUCKET_BYTES) {
            hand_over(z, i, begin);
        }
    }
}

int zero_reduce(struct zero *z, struct err *err)
{
    struct zero_queue *q = z->queue;
    if (q == NULL) {
        return 0;
    }
    hand_over(z, 0, 0);
    hand_over(z, 1, 0);
    close_queue(q);
    if (!q->begun) {
        overlap_start(q->beside, reduce_all, z);
    }
    int rc = overlap_wait(q->beside, err);
    q->begun = q->closed = false;
    q->count = 0;
    z->kind[0].left = z->kind[0].range.count;
    z->kind[1].left = z->kind[1].range.count;
    return rc;
}

double zero_sum_squares(const struct zero *z, const struct op_table *op)
{
    double sum = 0;
    for (int i = 1; i >= 0; i--) {
        const float *grad = z->kind[i].range.grad + z->kind[i].comm->rank * z->kind[i].part;
        sum += op->sum_squares(grad, z->kind[i].part);
    }
    return sum;
}

int zero_gather(const struct zero *z, struct err *err)
{
    for (int i = 0; i < 2 && z->parted; i++) {
        struct comm *c = z->kind[i].comm;
        float *weight = z->kind[i].range.weight;
        TRY(c->ops->all_gather(c, weight + c->rank * z->kind[i].part, weight,
                               z->kind[i].part * sizeof *weight, err));
    }
    return 0;
}
