#include "daemon/core/topology.h"

#include <stdlib.h>
#include <string.h>

#include "lib/hash.h"
#include "lib/hostlist.h"
#include "lib/mem.h"

static uint64_t hash_of(const char *name)
{
    uint64_t hash = hash_xxh3(name, strlen(name), 0);
    return hash != 0 ? hash : 1;
}

static const char * or (const char *text, const char *other)
{
    return text != NULL ? text : other;
}

/* The policy's lists, by name of node; made when first asked for. */
static void index_places(struct core *core)
{
    const struct policy *policy = &core->config.policy;
    core->places_known = true;
    for (size_t i = 0; i < policy->place_count; i++) {
        const struct policy_place *place = &policy->places[i];
        struct hostlist names = {0};
        struct err err;
        if (hostlist_expand(&names, place->nodes, &err) != 0) {
            continue; /* dsd refuses such a configuration */
        }
        for (size_t j = 0; j < names.count; j++) {
            uint64_t hash = hash_of(names.names[j]);
            struct policy_place *known = map_get(&core->places, hash);
            if (known == NULL) {
                known = mem_alloc(sizeof *known);
                map_set(&core->places, hash, known);
            }
            known->zone = or (place->zone, known->zone);
            known->rack = or (place->rack, known->rack);
            known->leaf = or (place->leaf, known->leaf);
        }
        hostlist_fini(&names);
    }
}

void topology_fini(struct core *core)
{
    for (size_t i = 0; i < core->places.capacity; i++) { /* in no order: they are only freed */
        if (core->places.slots[i].id != 0) {
            free(core->places.slots[i].value);
        }
    }
    map_fini(&core->places);
    map_fini(&core->place_numbers);
}

static bool set(char **field, const char *text)
{
    if (text == NULL || (*field != NULL && strcmp(*field, text) == 0)) {
        return false;
    }
    row_set_text(field, text);
    return true;
}

/* Places get numbers, so that the scheduler need not compare names. */
static uint32_t number_of(struct core *core, enum placement level, const char *name)
{
    if (level == PLACEMENT_ANY) {
        return 0;
    }
    uint64_t hash = hash_xxh3(name, strlen(name), level);
    hash = hash != 0 ? hash : 1;
    uintptr_t known = (uintptr_t)map_get(&core->place_numbers, hash);
    if (known == 0) {
        known = ++core->place_count;
        map_set(&core->place_numbers, hash, (void *)known);
    }
    return (uint32_t)known;
}

static void number_places(struct core *core, struct node *node)
{
    for (int level = PLACEMENT_ANY; level <= PLACEMENT_LEAF; level++) {
        node->place[level] =
            number_of(core, (enum placement)level, topology_place(node, (enum placement)level));
    }
}

void topology_apply(struct core *core, struct node *node)
{
    if (!core->places_known) {
        index_places(core);
    }
    const struct policy_place *place = map_get(&core->places, hash_of(node->row.name));
    if (place != NULL) {
        bool changed = set(&node->row.zone, place->zone);
        changed |= set(&node->row.rack, place->rack);
        changed |= set(&node->row.leaf, place->leaf);
        if (changed) {
            core_mark(core, TABLE_NODE, &node->row);
        }
    }
    number_places(core, node);
}

const char *topology_place(const struct node *node, enum placement level)
{
    const char *const places[] = {[PLACEMENT_ANY] = NULL,
                                  [PLACEMENT_ZONE] = node->row.zone,
                                  [PLACEMENT_RACK] = node->row.rack,
                                  [PLACEMENT_LEAF] = node->row.leaf};
    return places[level] != NULL ? places[level] : "";
}

uint32_t topology_crossings(struct node *const *nodes, uint32_t count)
{
    uint32_t crossings = 0;
    for (uint32_t i = 1; i < count; i++) {
        crossings += strcmp(topology_place(nodes[i - 1], PLACEMENT_LEAF),
                            topology_place(nodes[i], PLACEMENT_LEAF)) != 0;
    }
    return crossings;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

uint32_t topology_leaves(struct node *const *nodes, uint32_t count)
{
    const char **leaves = mem_alloc_array(count, sizeof *leaves);
    for (uint32_t i = 0; i < count; i++) {
        leaves[i] = topology_place(nodes[i], PLACEMENT_LEAF);
    }
    qsort(leaves, count, sizeof *leaves, compare);
    uint32_t different = count > 0;
    for (uint32_t i = 1; i < count; i++) {
        different += strcmp(leaves[i - 1], leaves[i]) != 0;
    }
    free(leaves);
    return different;
}
