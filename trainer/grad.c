#include "trainer/grad.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "lib/mem.h"

void grad_sync_init(struct grad_sync *g, const struct op_table *op, struct param *params,
                    size_t count, struct comm *dense, struct comm *data, struct comm *expert,
                    size_t bucket_floats)
{
    *g = (struct grad_sync){
        .op = op, .params = params, .count = count, .dense = dense, .data = data, .expert = expert};
    g->bucket_floats = bucket_floats > 0 ? bucket_floats : GRAD_BUCKET_FLOATS;
    if (dense->size > 1) {
        g->bucket = mem_alloc_array(g->bucket_floats, sizeof *g->bucket);
    }
}

void grad_sync_fini(struct grad_sync *g)
{
    free(g->bucket);
    *g = (struct grad_sync){0};
}

/* A place in the gradients of one kind, seen as one long vector. */
struct place {
    size_t param, offset;
};

/* Copies up to `room` floats between the vector at *at and the bucket; *at moves on. Returns how
 * many. */
static size_t copy(const struct grad_sync *g, bool experts, struct place *at, size_t room,
                   bool into_bucket)
{
    size_t done = 0;
    while (at->param < g->count && done < room) {
        const struct param *p = &g->params[at->param];
        if ((p->expert >= 0) == experts) {
            size_t left = p->count - at->offset;
            size_t n = left < room - done ? left : room - done;
            if (into_bucket) {
                g->op->copy_to_host(g->bucket + done, p->grad + at->offset, n * sizeof(float));
            } else {
                g->op->copy_from_host(p->grad + at->offset, g->bucket + done, n * sizeof(float));
            }
            done += n;
            at->offset += n;
            if (at->offset < p->count) {
                break;
            }
        }
        *at = (struct place){at->param + 1, 0};
    }
    return done;
}

static int sum_over(struct grad_sync *g, bool experts, struct comm *group, struct err *err)
{
    struct place at = {0};
    while (group->size > 1 && at.param < g->count) {
        struct place start = at;
        size_t n = copy(g, experts, &at, g->bucket_floats, true);
        TRY(group->ops->all_reduce_sum_f32(group, g->bucket, n, err));
        copy(g, experts, &start, n, false);
    }
    return 0;
}

int grad_sync_run(struct grad_sync *g, struct err *err)
{
    TRY(sum_over(g, false, g->dense, err));
    return sum_over(g, true, g->data, err);
}

int grad_norm(const struct grad_sync *g, double *norm, const char **suspect, struct err *err)
{
    double dense = 0;
    double experts = 0;
    *suspect = NULL;
    for (size_t i = 0; i < g->count; i++) {
        const struct param *p = &g->params[i];
        double sum = g->op->sum_squares(p->grad, p->count);
        if (!isfinite(sum) && *suspect == NULL) {
            *suspect = p->name;
        }
        *(p->expert >= 0 ? &experts : &dense) += sum;
    }
    TRY(g->expert->ops->all_reduce_sum_f64(g->expert, &experts, 1, err));
    *norm = sqrt(dense + experts);
    return 0;
}
