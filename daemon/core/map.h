/* Hash map from a non-zero 64-bit id to a pointer. For looking up only: its order depends on
 * hashing, so nothing may walk it. */
#ifndef DAEMON_CORE_MAP_H
#define DAEMON_CORE_MAP_H

#include <stddef.h>
#include <stdint.h>

struct map_slot {
    uint64_t id; /* 0: empty */
    void *value; /* borrowed */
};
/* A zeroed struct map is empty and valid. */
struct map {
    struct map_slot *slots; /* owned; a power of two */
    size_t capacity;
    size_t count;
};

void map_fini(struct map *map);
void *map_get(const struct map *map, uint64_t id); /* NULL when it is not there */
void map_set(struct map *map, uint64_t id, void *value);
void map_remove(struct map *map, uint64_t id); /* missing is fine */

#endif
