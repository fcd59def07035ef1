#include "daemon/core/census.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/core/node.h"
#include "daemon/core/reservation.h"
#include "daemon/core/sched_claim.h"
#include "daemon/core/timeline.h"
#include "lib/mem.h"

/* Who will want a node, by its number in core->nodes: found out when the first with room is met. */
struct claims {
    const struct job **jobs; /* owned; NULL: not found out yet */
    int64_t *until_ms;       /* owned */
};

/* ---------------------------------------------------------------- held for other jobs */

static bool is_planned(const struct core *core, const struct job *other)
{
    return other->queued && other->wait.nodes != NULL && other->wait.pass_ms == core->scheduled_ms;
}

static void claim(struct claims *claims, const struct node *node, const struct job *other,
                  int64_t until_ms)
{
    size_t at = (size_t)node->row.id - 1;
    if (claims->jobs[at] == NULL) {
        claims->jobs[at] = other;
        claims->until_ms[at] = until_ms;
    }
}

/* Room for both, or the job is over by then. */
static bool is_in_nobodys_way(const struct core *core, const struct demand *d,
                              const struct node *node, const struct job *other, int64_t from_ms)
{
    bool ends_before = d->length_ms != TIME_NEVER && d->length_ms <= from_ms - core->now_ms;
    bool other_kind = (d->gpus == 0) != (other->row.gpus_per_node == 0);
    return ends_before || other_kind || d->gpus + other->row.gpus_per_node <= node->free;
}

static void find_claims(const struct core *core, const struct job *job, const struct demand *d,
                        struct claims *claims)
{
    claims->jobs = mem_alloc_array(core->node_count, sizeof(struct job *));
    claims->until_ms = mem_alloc_array(core->node_count, sizeof *claims->until_ms);
    for (size_t i = 0; i < core->claim_count; i++) {
        const struct job *other = core_job(core, core->claims[i]);
        int64_t until_ms = other != NULL ? sched_claim_until_ms(core, other) : 0;
        for (uint32_t k = 0; other != job && until_ms > 0 && k < other->attempt->node_count; k++) {
            const struct node *node = other->attempt->nodes[k].node;
            if (!is_in_nobodys_way(core, d, node, other, core->now_ms)) {
                claim(claims, node, other, until_ms);
            }
        }
    }
    for (size_t i = 0; i < core->queue_count; i++) {
        const struct job *other = core->queue[i];
        for (uint32_t k = 0; other != job && is_planned(core, other) && k < other->wait.node_count;
             k++) {
            const struct node *node = other->wait.nodes[k];
            if (!is_in_nobodys_way(core, d, node, other, other->wait.start_ms)) {
                claim(claims, node, other, other->wait.start_ms);
            }
        }
    }
}

/* ---------------------------------------------------------------- windows */

static bool has_member(const struct reservation *res, const struct node *node)
{
    for (size_t m = 0; m < res->member_count; m++) {
        if (res->members[m] == node) {
            return true;
        }
    }
    return false;
}

/* The first reservation or maintenance on this node that the job would run into; NULL. */
static const struct reservation *window(const struct core *core, const struct demand *d,
                                        const struct node *node)
{
    for (size_t r = 0; r < core->reservation_count; r++) {
        const struct reservation *res = core->reservations[r];
        bool ends_before =
            d->length_ms != TIME_NEVER && core->now_ms + d->length_ms <= res->row.start_ms;
        if (reservation_is_live(res) && !reservation_admits(res, d->job) && !ends_before &&
            has_member(res, node)) {
            return res;
        }
    }
    return NULL;
}

static const struct reservation *maintenance(const struct core *core, const struct node *node)
{
    for (size_t r = 0; r < core->reservation_count; r++) {
        const struct reservation *res = core->reservations[r];
        if (res->row.kind == RESERVATION_MAINT && res->row.state == RESERVATION_ACTIVE &&
            has_member(res, node)) {
            return res;
        }
    }
    return NULL;
}

/* ---------------------------------------------------------------- the count */

/* More of them than there is place for are counted, not named. */
static enum whereabouts kept_for(struct census *c, struct holder holder)
{
    uint32_t i = 0;
    while (i < c->holder_count &&
           (c->holders[i].at != holder.at || c->holders[i].job != holder.job ||
            c->holders[i].reservation != holder.reservation)) {
        i++;
    }
    if (i == c->holder_count && i < HOLDERS_SHOWN) {
        c->holders[c->holder_count++] = holder;
    }
    if (i < HOLDERS_SHOWN) {
        c->holders[i].count++;
    }
    return holder.at;
}

/* Where a node is that nothing can be started on; FREE: none of these. */
static enum whereabouts locate_absent(const struct core *core, const struct node *node,
                                      struct census *c)
{
    if (node->row.by_user != NULL && node->row.state == NODE_DRAINING) {
        return DRAINING;
    }
    if (node->row.by_user != NULL && node->row.state == NODE_DRAINED) {
        return DRAINED;
    }
    if (node->maint > 0) {
        const struct reservation *res = maintenance(core, node);
        return res == NULL ? MAINTENANCE
                           : kept_for(c, (struct holder){.at = MAINTENANCE, .reservation = res});
    }
    if (node->row.state == NODE_FENCING || node->leftover_count > 0) {
        return FENCED;
    }
    if (node_is_usable(node)) {
        return FREE;
    }
    return node->row.state == NODE_UP ? SILENT : DOWN;
}

static enum whereabouts locate(const struct core *core, const struct demand *d,
                               const struct node *node, bool is_kept, struct claims *claims,
                               struct census *c)
{
    const struct job *job = d->job;
    if (node->gpu_count < d->gpus) {
        return SMALL;
    }
    enum whereabouts absent = locate_absent(core, node, c);
    if (absent != FREE) {
        return absent;
    }
    uint32_t ill = (uint32_t)node->gpu_count - node->healthy;
    if (d->gpus > 0 ? node->free < d->gpus : node->hosted >= NODE_HOSTED_MAX) {
        c->most_free = node->free > c->most_free ? node->free : c->most_free;
        bool is_faulty =
            d->gpus > 0 && (node->healthy < d->gpus || (ill > 0 && node->free + ill >= d->gpus));
        c->partly_ill += is_faulty && node->healthy >= d->gpus;
        return is_faulty ? FAULTY : BUSY;
    }
    if (is_kept || (node->row.spare_job != 0 && node->row.spare_job != job->row.id)) {
        return SPARE;
    }
    const struct reservation *res = window(core, d, node);
    if (res != NULL) {
        return kept_for(c, (struct holder){.at = WINDOW, .reservation = res});
    }
    if (claims->jobs == NULL) {
        find_claims(core, job, d, claims);
    }
    size_t at = (size_t)node->row.id - 1;
    if (claims->jobs[at] != NULL) {
        return kept_for(
            c,
            (struct holder){.at = HELD, .job = claims->jobs[at], .until_ms = claims->until_ms[at]});
    }
    return FREE;
}

/* The last ones with nothing on them are the cluster's spares, as in timeline.c. */
static bool is_spare(const struct node *node, uint32_t *wanted)
{
    if (*wanted == 0 || !node_is_usable(node) || node->maint > 0 || node->first != NULL ||
        node->healthy == 0 || node->row.spare_job != 0) {
        return false;
    }
    --*wanted;
    return true;
}

void census_take(const struct core *core, const struct job *job, struct census *c)
{
    *c = (struct census){0};
    struct demand d = demand_of(core, job);
    struct claims claims = {0};
    uint32_t spares = core->config.policy.spares;
    uint32_t *places = mem_alloc_array(core->place_count + 1, sizeof *places);
    for (size_t i = core->node_count; i-- > 0;) {
        const struct node *node = core->nodes[i];
        bool is_kept = is_spare(node, &spares) && !d.takes_spares;
        enum whereabouts at = locate(core, &d, node, is_kept, &claims, c);
        if (at == FREE) {
            uint32_t there = ++places[node->place[job->row.placement]];
            c->in_one_place = there > c->in_one_place ? there : c->in_one_place;
        }
        memmove(c->first[at] + 1, c->first[at], (NAMES_SHOWN - 1) * sizeof c->first[at][0]);
        c->first[at][0] = node;
        c->count[at]++;
    }
    free(places);
    free(claims.jobs);
    free(claims.until_ms);
}
