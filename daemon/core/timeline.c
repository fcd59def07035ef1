#include "daemon/core/timeline.h"

#include <assert.h>
#include <stdlib.h>

#include "daemon/core/attempt.h"
#include "daemon/core/node.h"
#include "daemon/core/reservation.h"
#include "daemon/core/sched_claim.h"
#include "lib/mem.h"

/* A job that should have ended and has not will end any moment. */
#define OVERDUE_MS 60000

static int64_t add_ms(int64_t at_ms, int64_t length_ms)
{
    return length_ms >= TIME_NEVER - at_ms ? TIME_NEVER : at_ms + length_ms;
}

static struct slot *add_slot(struct timeline *tl, uint32_t i, int64_t from_ms, int64_t to_ms)
{
    void *slots = tl->slots;
    mem_grow(&slots, &tl->slot_capacity, tl->slot_count + 1, sizeof *tl->slots);
    tl->slots = slots;
    struct slot *slot = &tl->slots[tl->slot_count];
    *slot = (struct slot){.from_ms = from_ms, .to_ms = to_ms, .next = tl->nodes[i].first};
    tl->nodes[i].first = (uint32_t)tl->slot_count++;
    return slot;
}

/* ---------------------------------------------------------------- from the state */

/* Usable now, or when the maintenance is over that it is under. */
static bool is_plannable(const struct node *node)
{
    bool in_maint = node->maint > 0 && node->row.by_user == NULL && node->session != 0 &&
                    node->leftover_count == 0;
    return node_is_usable(node) || in_maint;
}

static void add_parts(struct timeline *tl, uint32_t i)
{
    struct tl_node *n = &tl->nodes[i];
    int64_t now_ms = tl->core->now_ms;
    for (const struct attempt_node *an = n->node->first; an != NULL; an = an->next) {
        int64_t end_ms = an->attempt->end_ms;
        struct slot *slot = add_slot(tl, i, now_ms, end_ms > now_ms ? end_ms : now_ms + OVERDUE_MS);
        slot->gpus = an->gpu_count;
        slot->hosts = an->gpu_count == 0 ? an->rank_count : 0;
        slot->job = an->row.job_id;
    }
}

static void keep_for(struct timeline *tl, const struct attempt *attempt, int64_t until_ms)
{
    tl->settle_ms = until_ms < tl->settle_ms ? until_ms : tl->settle_ms;
    for (uint32_t k = 0; k < attempt->node_count; k++) {
        const struct attempt_node *an = &attempt->nodes[k];
        uint32_t i = tl->of_node[an->row.node_id - 1];
        if (!attempt_node_is_live(an) && i != SLOT_NONE) {
            struct slot *slot = add_slot(tl, i, tl->core->now_ms, until_ms);
            slot->gpus = an->gpu_count;
            slot->hosts = an->gpu_count == 0 ? an->rank_count : 0;
            slot->job = an->row.job_id;
        }
    }
}

static void add_claims(struct timeline *tl)
{
    for (size_t i = 0; i < tl->core->claim_count; i++) {
        const struct job *job = core_job(tl->core, tl->core->claims[i]);
        int64_t until_ms = job != NULL ? sched_claim_until_ms(tl->core, job) : 0;
        if (until_ms > 0) {
            keep_for(tl, job->attempt, until_ms);
        }
    }
}

/* The nodes of a gang that ends come free one by one, within moments: they wait for each other, so
 * that the next gang finds them together and small jobs do not eat them up. Those of one that
 * failed wait for all its ranks, to go on there. */
static void add_ending(struct timeline *tl)
{
    int64_t now_ms = tl->core->now_ms;
    for (size_t r = 0; r < tl->core->running_count; r++) {
        const struct attempt *attempt = tl->core->running[r]->attempt;
        int64_t until_ms = attempt_gathers_until_ms(attempt);
        if (until_ms > now_ms) {
            keep_for(tl, attempt, until_ms);
        }
    }
}

static void add_windows(struct timeline *tl)
{
    const struct core *core = tl->core;
#ifdef MUTANT_reservation_ignored
    return;
#endif
    for (size_t r = 0; r < core->reservation_count; r++) {
        const struct reservation *reservation = core->reservations[r];
        for (size_t m = 0; reservation_is_live(reservation) && m < reservation->member_count; m++) {
            uint32_t i = tl->of_node[reservation->members[m]->row.id - 1];
            if (i == SLOT_NONE) {
                continue;
            }
            int64_t from_ms = reservation->row.start_ms;
            struct slot *slot = add_slot(tl, i, from_ms > core->now_ms ? from_ms : core->now_ms,
                                         reservation->row.end_ms);
            slot->gpus = UINT32_MAX / 2;
            slot->hosts = UINT32_MAX / 2;
            slot->reservation = reservation;
        }
    }
}

/* The last ones with nothing on them are kept for those that lose a node. */
static void keep_spares(struct timeline *tl)
{
    uint32_t wanted = tl->core->config.policy.spares;
    for (uint32_t i = tl->node_count; i-- > 0 && wanted > 0;) {
        struct tl_node *n = &tl->nodes[i];
        if (n->node->first == NULL && n->capacity > 0 && n->spare_job == 0 && n->node->maint == 0) {
            n->is_kept = true;
            wanted--;
        }
    }
}

void timeline_init(struct timeline *tl, const struct core *core)
{
    *tl = (struct timeline){.core = core, .settle_ms = TIME_NEVER};
    tl->nodes = mem_alloc_array(core->node_count, sizeof *tl->nodes);
    tl->of_node = mem_alloc_array(core->node_count, sizeof *tl->of_node);
    tl->avail = mem_alloc_array(core->node_count, sizeof *tl->avail);
    for (size_t r = 0; r < core->running_count; r++) {
        struct attempt *attempt = core->running[r]->attempt;
        attempt->end_ms = attempt_end_ms(core, attempt);
    }
    for (size_t k = 0; k < core->node_count; k++) {
        struct node *node = core->nodes[k];
        tl->of_node[k] = SLOT_NONE;
        if (!is_plannable(node)) {
            continue;
        }
        uint32_t i = tl->node_count++;
        tl->of_node[k] = i;
        tl->nodes[i] =
            (struct tl_node){.node = node,
                             .capacity = node->healthy,
                             .free = node->maint == 0 ? node->free : 0,
                             .hosts = node->maint == 0 ? NODE_HOSTED_MAX - node->hosted : 0,
                             .first = SLOT_NONE,
                             .avail_at = SLOT_NONE,
                             .spare_job = node->row.spare_job};
        add_parts(tl, i);
        if (tl->nodes[i].free > 0) {
            tl->nodes[i].avail_at = tl->avail_count;
            tl->avail[tl->avail_count++] = i;
        }
        tl->with_free[tl->nodes[i].free]++;
    }
    add_ending(tl);
    add_claims(tl);
    add_windows(tl);
    keep_spares(tl);
}

void timeline_fini(struct timeline *tl)
{
    free(tl->nodes);
    free(tl->of_node);
    free(tl->slots);
    free(tl->avail);
    *tl = (struct timeline){0};
}

struct demand demand_of(const struct core *core, const struct job *job)
{
    int64_t left_ms = job->row.time_limit_ms - job->row.ran_ms;
    return (struct demand){
        .job = job,
        .nodes = (uint32_t)job->row.nodes_min,
        .gpus = (uint32_t)job->row.gpus_per_node,
        .length_ms = job->row.time_limit_ms == 0
                         ? TIME_NEVER
                         : (left_ms > 0 ? left_ms : 0) + core->config.stop_grace_ms,
        .placement = job->row.placement,
        .takes_spares = job->row.restart_first,
    };
}

/* ---------------------------------------------------------------- room */

static bool is_open_to(const struct tl_node *n, const struct demand *d)
{
#ifdef MUTANT_spare_taken
    return n->capacity >= d->gpus;
#endif
    return n->capacity >= d->gpus && (!n->is_kept || d->takes_spares) &&
           (n->spare_job == 0 || n->spare_job == d->job->row.id);
}

/* Whether the slots that cover this moment leave room. */
static bool has_room(const struct timeline *tl, const struct tl_node *n, const struct demand *d,
                     int64_t at_ms)
{
    uint64_t gpus = d->gpus, hosts = d->gpus == 0;
    for (uint32_t s = n->first; s != SLOT_NONE; s = tl->slots[s].next) {
        const struct slot *slot = &tl->slots[s];
        bool admits = slot->reservation != NULL ? reservation_admits(slot->reservation, d->job)
                                                : slot->job == d->job->row.id; /* kept for it */
        if (slot->from_ms <= at_ms && at_ms < slot->to_ms && !admits) {
            gpus += slot->gpus;
            hosts += slot->hosts;
        }
    }
    return gpus <= n->capacity && hosts <= NODE_HOSTED_MAX;
}

/* The first moment from at_ms on at which there is no room; TIME_NEVER. Room is lost only where a
 * slot begins. */
static int64_t room_until(const struct timeline *tl, const struct tl_node *n,
                          const struct demand *d, int64_t at_ms)
{
    int64_t until_ms = TIME_NEVER;
#ifdef MUTANT_backfill_delays
    return until_ms;
#endif
    for (uint32_t s = n->first; s != SLOT_NONE; s = tl->slots[s].next) {
        int64_t from_ms = tl->slots[s].from_ms;
        if (from_ms > at_ms && from_ms < until_ms && !has_room(tl, n, d, from_ms)) {
            until_ms = from_ms;
        }
    }
    return until_ms;
}

bool timeline_fits(const struct timeline *tl, uint32_t i, const struct demand *d, int64_t at_ms)
{
    const struct tl_node *n = &tl->nodes[i];
    if (!is_open_to(n, d)) {
        return false;
    }
    if (at_ms == tl->core->now_ms && (d->gpus > 0 ? n->free < d->gpus : n->hosts == 0)) {
        return false;
    }
    return has_room(tl, n, d, at_ms) && add_ms(at_ms, d->length_ms) <= room_until(tl, n, d, at_ms);
}

/* How much of node i's time is lost by taking it from at_ms on: before, when it is taken later;
 * after it, when now. */
int64_t timeline_slack(const struct timeline *tl, uint32_t i, const struct demand *d, int64_t at_ms)
{
    const struct tl_node *n = &tl->nodes[i];
    if (at_ms == tl->core->now_ms) {
        return room_until(tl, n, d, at_ms);
    }
    int64_t from_ms = tl->core->now_ms;
    for (uint32_t s = n->first; s != SLOT_NONE; s = tl->slots[s].next) {
        int64_t to_ms = tl->slots[s].to_ms;
        if (to_ms <= at_ms && to_ms > from_ms) {
            from_ms = to_ms;
        }
    }
    return at_ms - from_ms;
}

static int compare_indices(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

uint32_t timeline_candidates(const struct timeline *tl, const struct demand *d, int64_t at_ms,
                             uint32_t *list)
{
    uint32_t count = 0;
    if (at_ms != tl->core->now_ms || d->gpus == 0) {
        for (uint32_t i = 0; i < tl->node_count; i++) {
            list[count] = i;
            count += timeline_fits(tl, i, d, at_ms);
        }
        return count;
    }
    for (uint32_t k = 0; k < tl->avail_count; k++) {
        list[count] = tl->avail[k];
        count += timeline_fits(tl, tl->avail[k], d, at_ms);
    }
    qsort(list, count, sizeof *list, compare_indices);
    return count;
}

uint32_t timeline_free_nodes(const struct timeline *tl, uint32_t gpus)
{
    uint32_t count = 0;
    for (uint32_t free = gpus; free <= NODE_GPUS_MAX; free++) {
        count += tl->with_free[free];
    }
    return count;
}

/* ---------------------------------------------------------------- when */

struct change {
    int64_t at_ms;
    uint32_t place;
    int32_t by;
};

struct changes {
    struct change *items;
    size_t count, capacity;
};

static void add_change(struct changes *c, int64_t at_ms, uint32_t place, int32_t by)
{
    void *items = c->items;
    mem_grow(&items, &c->capacity, c->count + 1, sizeof *c->items);
    c->items = items;
    c->items[c->count++] = (struct change){at_ms, place, by};
}

/* Starts on this node are possible from here until.. : one range. Where the node leaves the set it
 * leaves before others of that time come. */
static int compare_changes(const void *a, const void *b)
{
    const struct change *x = a, *y = b;
    if (x->at_ms != y->at_ms) {
        return x->at_ms < y->at_ms ? -1 : 1;
    }
    return (x->by > y->by) - (x->by < y->by);
}

/* All times at which the node may be taken, as ranges of starts. */
static void add_ranges(const struct timeline *tl, uint32_t i, const struct demand *d,
                       int64_t until_ms, struct changes *changes)
{
    const struct tl_node *n = &tl->nodes[i];
    uint32_t place = n->node->place[d->placement];
    int64_t now_ms = tl->core->now_ms;
    int64_t starts[64];
    size_t count = 0;
    starts[count++] = now_ms;
    for (uint32_t s = n->first; s != SLOT_NONE && count < 64; s = tl->slots[s].next) {
        int64_t to_ms = tl->slots[s].to_ms;
        if (to_ms <= until_ms) {
            size_t at = count++;
            while (at > 0 && starts[at - 1] > to_ms) {
                starts[at] = starts[at - 1];
                at--;
            }
            starts[at] = to_ms;
        }
    }
    int64_t covered_ms = INT64_MIN; /* starts before this are in a range already */
    for (size_t k = 0; k < count; k++) {
        if (starts[k] < covered_ms || !timeline_fits(tl, i, d, starts[k])) {
            continue;
        }
        int64_t room_ms = room_until(tl, n, d, starts[k]);
        add_change(changes, starts[k], place, 1);
        if (room_ms == TIME_NEVER || d->length_ms == TIME_NEVER) {
            return;
        }
        covered_ms = room_ms - d->length_ms + 1;
        add_change(changes, covered_ms, place, -1);
    }
}

int64_t timeline_earliest(const struct timeline *tl, const struct demand *d, int64_t until_ms)
{
    struct changes changes = {0};
    uint32_t places = tl->core->place_count + 1;
    uint32_t *count = mem_alloc_array(places, sizeof *count);
    int64_t found_ms = TIME_NEVER;
    for (uint32_t i = 0; i < tl->node_count; i++) {
        if (is_open_to(&tl->nodes[i], d)) {
            add_ranges(tl, i, d, until_ms, &changes);
        }
    }
    if (changes.count > 0) {
        qsort(changes.items, changes.count, sizeof *changes.items, compare_changes);
    }
    for (size_t k = 0; k < changes.count && found_ms == TIME_NEVER; k++) {
        const struct change *c = &changes.items[k];
        count[c->place] += (uint32_t)c->by;
        found_ms = c->by > 0 && count[c->place] >= d->nodes ? c->at_ms : TIME_NEVER;
    }
    free(count);
    free(changes.items);
    return found_ms;
}

/* ---------------------------------------------------------------- changes */

static void leave_avail(struct timeline *tl, struct tl_node *n)
{
    if (n->avail_at != SLOT_NONE) {
        uint32_t last = tl->avail[--tl->avail_count];
        tl->avail[n->avail_at] = last;
        tl->nodes[last].avail_at = n->avail_at;
        n->avail_at = SLOT_NONE;
    }
}

void timeline_take(struct timeline *tl, uint32_t i, const struct demand *d, int64_t at_ms)
{
    int64_t length_ms =
        d->length_ms == TIME_NEVER ? tl->core->config.policy.assumed_runtime_ms : d->length_ms;
    struct slot *slot = add_slot(tl, i, at_ms, add_ms(at_ms, length_ms));
    slot->gpus = d->gpus;
    slot->hosts = d->gpus == 0;
    slot->job = d->job->row.id;
    if (at_ms == tl->core->now_ms) {
        struct tl_node *n = &tl->nodes[i];
        assert(d->gpus > 0 ? n->free >= d->gpus : n->hosts > 0);
        tl->with_free[n->free]--;
        n->free -= d->gpus;
        n->hosts -= d->gpus == 0;
        tl->with_free[n->free]++;
        if (n->free == 0) {
            leave_avail(tl, n);
        }
    }
}

void timeline_cut(struct timeline *tl, uint32_t i, uint64_t job, int64_t at_ms)
{
    for (uint32_t s = tl->nodes[i].first; s != SLOT_NONE; s = tl->slots[s].next) {
        struct slot *slot = &tl->slots[s];
        if (slot->job == job && slot->to_ms > at_ms) {
            slot->to_ms = at_ms;
        }
    }
}
