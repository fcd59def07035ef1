#include "daemon/core/sched_place.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/core/topology.h"
#include "lib/mem.h"

struct seat {
    uint32_t index; /* of the timeline's node */
    uint32_t leaf, rack, zone;
    uint32_t load; /* less is fuller */
    int64_t slack;
    bool is_former;
    const char *name;
};
/* The seats of one leaf: a run in the sorted list. */
struct leaf {
    uint32_t first, count, former;
    uint32_t zone_count, rack_count; /* seats in its whole zone and rack */
    uint32_t taken;
    uint32_t put_off; /* seats that would be a piece of an expert group: taken when nothing else is
                         left */
};

static int compare_seats(const void *a, const void *b)
{
    const struct seat *x = a, *y = b;
    if (x->zone != y->zone) {
        return x->zone < y->zone ? -1 : 1;
    }
    if (x->rack != y->rack) {
        return x->rack < y->rack ? -1 : 1;
    }
    if (x->leaf != y->leaf) {
        return x->leaf < y->leaf ? -1 : 1;
    }
    if (x->is_former != y->is_former) {
        return x->is_former ? -1 : 1;
    }
    if (x->load != y->load) {
        return x->load < y->load ? -1 : 1;
    }
    if (x->slack != y->slack) {
        return x->slack < y->slack ? -1 : 1;
    }
    return strcmp(x->name, y->name);
}

static void mark_former(const struct timeline *tl, const struct job *job, bool *is_former)
{
    for (uint32_t i = 0; job->attempt != NULL && i < job->attempt->node_count; i++) {
        uint32_t index = tl->of_node[job->attempt->nodes[i].node->row.id - 1];
        if (index != SLOT_NONE) {
            is_former[index] = true;
        }
    }
}

static struct seat *make_seats(const struct timeline *tl, const struct demand *d,
                               const uint32_t *candidates, uint32_t count, int64_t at_ms)
{
    struct seat *seats = mem_alloc_array(count, sizeof *seats);
    bool *is_former = mem_alloc_array(tl->node_count, sizeof *is_former);
    mark_former(tl, d->job, is_former);
    for (uint32_t k = 0; k < count; k++) {
        const struct tl_node *n = &tl->nodes[candidates[k]];
        seats[k] = (struct seat){
            .index = candidates[k],
            .leaf = n->node->place[PLACEMENT_LEAF],
            .rack = n->node->place[PLACEMENT_RACK],
            .zone = n->node->place[PLACEMENT_ZONE],
            .load = at_ms > tl->core->now_ms ? 0
                    : d->gpus > 0            ? n->free
                                             : NODE_HOSTED_MAX - n->hosts,
            .is_former =
                is_former[candidates[k]] || (n->spare_job != 0 && n->spare_job == d->job->row.id),
            .name = n->node->row.name,
            .slack = timeline_slack(tl, candidates[k], d, at_ms),
        };
    }
    free(is_former);
    qsort(seats, count, sizeof *seats, compare_seats);
    return seats;
}

static struct leaf *make_leaves(const struct seat *seats, uint32_t count, uint32_t *leaf_count)
{
    struct leaf *leaves = mem_alloc_array(count, sizeof *leaves);
    uint32_t n = 0, rack_from = 0, zone_from = 0, rack_seat = 0, zone_seat = 0;
    for (uint32_t k = 0; k <= count; k++) {
        bool new_zone = k == count || k == 0 || seats[k].zone != seats[k - 1].zone;
        bool new_rack = new_zone || seats[k].rack != seats[k - 1].rack;
        bool new_leaf = new_rack || seats[k].leaf != seats[k - 1].leaf;
        for (uint32_t l = rack_from; new_rack && l < n; l++) {
            leaves[l].rack_count = k - rack_seat;
        }
        for (uint32_t l = zone_from; new_zone && l < n; l++) {
            leaves[l].zone_count = k - zone_seat;
        }
        if (new_rack) {
            rack_from = n;
            rack_seat = k;
        }
        if (new_zone) {
            zone_from = n;
            zone_seat = k;
        }
        if (k == count) {
            break;
        }
        if (new_leaf) {
            leaves[n++] = (struct leaf){.first = k};
        }
        leaves[n - 1].count++;
        leaves[n - 1].former += seats[k].is_former;
    }
    *leaf_count = n;
    return leaves;
}

/* Whether taking `wanted` from a is better than from b: where it was; then the tightest leaf that
 * holds all of it; then, when none does, the tightest rack and zone, and there the largest leaf. */
static bool is_better(const struct leaf *a, const struct leaf *b, uint32_t wanted)
{
    uint32_t a_left = a->count - a->taken, b_left = b->count - b->taken;
    if ((a->former > a->taken) != (b->former > b->taken)) {
        return a->former > a->taken;
    }
    bool a_holds = a_left >= wanted, b_holds = b_left >= wanted;
    if (a_holds != b_holds) {
        return a_holds;
    }
    if (a_holds) {
        return a_left < b_left;
    }
    bool a_rack = a->rack_count >= wanted, b_rack = b->rack_count >= wanted;
    if (a_rack != b_rack) {
        return a_rack;
    }
    if (a_rack && a->rack_count != b->rack_count) {
        return a->rack_count < b->rack_count;
    }
    bool a_zone = a->zone_count >= wanted, b_zone = b->zone_count >= wanted;
    if (a_zone != b_zone) {
        return a_zone;
    }
    if (a_zone && a->zone_count != b->zone_count) {
        return a->zone_count < b->zone_count;
    }
    return a_left > b_left;
}

/* The same leaf's level at which the first choice was made stays: the rest comes from its rack,
 * else its zone, as long as there is some. */
static bool is_near(const struct seat *a, const struct seat *b, int level)
{
    return level == 0 ? a->rack == b->rack && a->zone == b->zone : level > 1 || a->zone == b->zone;
}

static uint32_t pick_leaf(const struct seat *seats, const struct leaf *leaves, uint32_t leaf_count,
                          uint32_t near, uint32_t wanted)
{
    for (int level = near == SLOT_NONE ? 2 : 0; level <= 2; level++) {
        uint32_t best = SLOT_NONE;
        for (uint32_t l = 0; l < leaf_count; l++) {
            if (leaves[l].taken == leaves[l].count ||
                (near != SLOT_NONE &&
                 !is_near(&seats[leaves[near].first], &seats[leaves[l].first], level))) {
                continue;
            }
            if (best == SLOT_NONE || is_better(&leaves[l], &leaves[best], wanted)) {
                best = l;
            }
        }
        if (best != SLOT_NONE) {
            return best;
        }
    }
    return SLOT_NONE;
}

/* Nodes that an expert group spans. */
static uint32_t group_nodes(const struct demand *d)
{
    uint32_t per_node = d->gpus > 0 ? d->gpus : 1;
    uint32_t ranks = (uint32_t)d->job->row.expert_ranks;
    return ranks > per_node ? (ranks + per_node - 1) / per_node : 1;
}

static void take_seats(const struct seat *seats, struct leaf *leaves, uint32_t leaf_count,
                       uint32_t nodes, uint32_t group)
{
    uint32_t near = SLOT_NONE, wanted = nodes;
    for (bool whole_groups = group > 1; wanted > 0;) {
        uint32_t l = pick_leaf(seats, leaves, leaf_count, near, wanted);
        if (l == SLOT_NONE) { /* only pieces of groups are left */
            for (l = 0; l < leaf_count; l++) {
                leaves[l].count += leaves[l].put_off;
                leaves[l].put_off = 0;
            }
            whole_groups = false;
            continue;
        }
        uint32_t left = leaves[l].count - leaves[l].taken;
        uint32_t take = left < wanted ? left : wanted;
        if (whole_groups && take < wanted && take % group != 0) {
            uint32_t piece = take % group;
            leaves[l].count -= piece;
            leaves[l].put_off = piece;
            take -= piece;
        }
        leaves[l].taken += take;
        wanted -= take;
        near = take > 0 ? l : near;
    }
}

/* ---------------------------------------------------------------- rank order */

struct order {
    uint32_t index;
    uint32_t zone, rack, leaf;
    bool is_whole; /* its leaf gives whole groups */
    const char *name;
};

static int compare_order(const void *a, const void *b)
{
    const struct order *x = a, *y = b;
    if (x->is_whole != y->is_whole) {
        return x->is_whole ? -1 : 1;
    }
    if (x->zone != y->zone) {
        return x->zone < y->zone ? -1 : 1;
    }
    if (x->rack != y->rack) {
        return x->rack < y->rack ? -1 : 1;
    }
    if (x->leaf != y->leaf) {
        return x->leaf < y->leaf ? -1 : 1;
    }
    return strcmp(x->name, y->name);
}

static void put_in_order(const struct seat *seats, const struct leaf *leaves, uint32_t leaf_count,
                         uint32_t nodes, uint32_t group, uint32_t *chosen)
{
    struct order *order = mem_alloc_array(nodes, sizeof *order);
    uint32_t n = 0;
    for (uint32_t l = 0; l < leaf_count; l++) {
        for (uint32_t k = leaves[l].first; k < leaves[l].first + leaves[l].taken; k++) {
            order[n++] = (struct order){seats[k].index,
                                        seats[k].zone,
                                        seats[k].rack,
                                        seats[k].leaf,
                                        leaves[l].taken % group == 0,
                                        seats[k].name};
        }
    }
    qsort(order, n, sizeof *order, compare_order);
    for (uint32_t k = 0; k < n; k++) {
        chosen[k] = order[k].index;
    }
    free(order);
}

/* Of several places that could hold the whole gang: the one with most of its former nodes, then the
 * tightest. Leaves only its candidates. */
static uint32_t keep_one_place(const struct timeline *tl, const struct demand *d,
                               uint32_t *candidates, uint32_t count, uint32_t nodes)
{
    uint32_t places = tl->core->place_count + 1;
    uint32_t *have = mem_alloc_array(places, sizeof *have);
    uint32_t *former = mem_alloc_array(places, sizeof *former);
    bool *is_former = mem_alloc_array(tl->node_count, sizeof *is_former);
    mark_former(tl, d->job, is_former);
    uint32_t best = SLOT_NONE, kept = 0;
    for (uint32_t k = 0; k < count; k++) {
        uint32_t place = tl->nodes[candidates[k]].node->place[d->placement];
        have[place]++;
        former[place] += is_former[candidates[k]];
    }
    for (uint32_t p = 0; p < places; p++) {
        if (have[p] >= nodes && (best == SLOT_NONE || former[p] > former[best] ||
                                 (former[p] == former[best] && have[p] < have[best]))) {
            best = p;
        }
    }
    for (uint32_t k = 0; k < count && best != SLOT_NONE; k++) {
        candidates[kept] = candidates[k];
        kept += tl->nodes[candidates[k]].node->place[d->placement] == best;
    }
    free(is_former);
    free(former);
    free(have);
    return kept;
}

uint32_t sched_most(const struct timeline *tl, const struct demand *d, const uint32_t *candidates,
                    uint32_t count)
{
    if (d->placement == PLACEMENT_ANY) {
        return count;
    }
    uint32_t *have = mem_alloc_array(tl->core->place_count + 1, sizeof *have);
    uint32_t most = 0;
    for (uint32_t k = 0; k < count; k++) {
        uint32_t place = tl->nodes[candidates[k]].node->place[d->placement];
        most = ++have[place] > most ? have[place] : most;
    }
    free(have);
    return most;
}

bool sched_choose(const struct timeline *tl, const struct demand *d, uint32_t *candidates,
                  uint32_t count, uint32_t nodes, int64_t at_ms, uint32_t *chosen)
{
    if (d->placement != PLACEMENT_ANY) {
        count = keep_one_place(tl, d, candidates, count, nodes);
    }
    if (count < nodes || nodes == 0) {
        return false;
    }
    struct seat *seats = make_seats(tl, d, candidates, count, at_ms);
    uint32_t leaf_count, group = group_nodes(d);
    struct leaf *leaves = make_leaves(seats, count, &leaf_count);
    take_seats(seats, leaves, leaf_count, nodes, group);
    put_in_order(seats, leaves, leaf_count, nodes, group, chosen);
    free(leaves);
    free(seats);
    return true;
}
