/* Ids for things that come and go: an id is never given twice, and finds its item in one step, or
 * nothing when the item is gone. */
#ifndef DAEMON_SLOTMAP_H
#define DAEMON_SLOTMAP_H

#include <stddef.h>
#include <stdint.h>

struct slotmap {
    struct slot *slots; /* owned */
    size_t capacity;
    size_t count;    /* slots ever used */
    size_t items;    /* now in the map */
    uint32_t free;   /* head of the list of unused slots, + 1; 0 none */
    uint64_t serial; /* of the newest id */
};

void slotmap_fini(struct slotmap *m);
/* Never 0. The item is borrowed. */
uint64_t slotmap_add(struct slotmap *m, void *item);
void *slotmap_find(const struct slotmap *m, uint64_t id);
void slotmap_remove(struct slotmap *m, uint64_t id);

#endif
