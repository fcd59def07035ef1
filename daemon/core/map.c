/* Open addressing with linear probing; a removal shifts the rest of the cluster back, so there are
 * no tombstones. */
#include "daemon/core/map.h"

#include <stdlib.h>

#include "lib/mem.h"

static size_t home(const struct map *map, uint64_t id)
{
    return (size_t)((id * 0x9e3779b97f4a7c15u) >> 20) & (map->capacity - 1);
}

static size_t slot_of(const struct map *map, uint64_t id)
{
    size_t i = home(map, id);
    while (map->slots[i].id != 0 && map->slots[i].id != id) {
        i = (i + 1) & (map->capacity - 1);
    }
    return i;
}

static void grow(struct map *map)
{
    struct map old = *map;
    map->capacity = old.capacity == 0 ? 16 : old.capacity * 2;
    map->slots = mem_alloc_array(map->capacity, sizeof *map->slots);
    for (size_t i = 0; i < old.capacity; i++) {
        if (old.slots[i].id != 0) {
            map->slots[slot_of(map, old.slots[i].id)] = old.slots[i];
        }
    }
    free(old.slots);
}

void map_fini(struct map *map)
{
    free(map->slots);
    *map = (struct map){0};
}

void *map_get(const struct map *map, uint64_t id)
{
    return map->capacity == 0 || id == 0 ? NULL : map->slots[slot_of(map, id)].value;
}

void map_set(struct map *map, uint64_t id, void *value)
{
    if ((map->count + 1) * 4 > map->capacity * 3) {
        grow(map);
    }
    struct map_slot *slot = &map->slots[slot_of(map, id)];
    map->count += slot->id == 0;
    *slot = (struct map_slot){id, value};
}

void map_remove(struct map *map, uint64_t id)
{
    if (map->capacity == 0 || id == 0) {
        return;
    }
    size_t mask = map->capacity - 1;
    size_t hole = slot_of(map, id);
    if (map->slots[hole].id == 0) {
        return;
    }
    map->count--;
    for (size_t i = (hole + 1) & mask; map->slots[i].id != 0; i = (i + 1) & mask) {
        /* May move back only if its home is not between the hole and itself. */
        if (((i - home(map, map->slots[i].id)) & mask) >= ((i - hole) & mask)) {
            map->slots[hole] = map->slots[i];
            hole = i;
        }
    }
    map->slots[hole] = (struct map_slot){0};
}
