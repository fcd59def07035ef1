#include "trainer/balance.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

int balance_sum_loads(struct router *routers, size_t count, struct comm *group, struct err *err)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
        total += routers[i].experts;
    }
    if (group->size == 1 || total == 0) {
        return 0;
    }
    uint64_t *all = mem_alloc_array(total, sizeof *all);
    uint64_t *p = all;
    for (size_t i = 0; i < count; p += routers[i++].experts) {
        memcpy(p, routers[i].load, routers[i].experts * sizeof *p);
    }
    int rc = group->ops->all_reduce_sum_u64(group, all, total, err);
    p = all;
    for (size_t i = 0; i < count; p += routers[i++].experts) {
        memcpy(routers[i].load, p, routers[i].experts * sizeof *p);
    }
    free(all);
    return rc;
}

static uint64_t total_load(const struct router *r)
{
    uint64_t total = 0;
    for (uint32_t e = 0; e < r->experts; e++) {
        total += r->load[e];
    }
    return total;
}

static double violation(const struct router *r)
{
    uint64_t max = 0, total = total_load(r);
    for (uint32_t e = 0; e < r->experts; e++) {
        max = r->load[e] > max ? r->load[e] : max;
    }
    return total > 0 ? (double)max * r->experts / (double)total - 1.0 : 0.0;
}

double balance_max_violation(const struct router *routers, size_t count, double *each)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        double x = violation(&routers[i]);
        sum += x;
        if (each != NULL) {
            each[i] = x;
        }
    }
    return count > 0 ? sum / (double)count : NAN;
}

void balance_update(struct router *routers, size_t count, double speed)
{
    for (size_t i = 0; i < count; i++) {
        struct router *r = &routers[i];
        uint64_t total = total_load(r);
        for (uint32_t e = 0; e < r->experts; e++) {
            uint64_t scaled =
                r->load[e] * r->experts; /* against the total: the mean without a division */
            r->bias[e] += (float)speed * (float)((scaled < total) - (scaled > total));
        }
    }
}
