/* An id is serial << 26 | slot: the slot says where, the serial whether it is still the same item.
 */
#include "daemon/slotmap.h"

#include <assert.h>
#include <stdlib.h>

#include "lib/mem.h"

#define SLOT_BITS 26
#define SLOT_MASK ((1u << SLOT_BITS) - 1)

struct slot {
    uint64_t id; /* 0: unused */
    void *item;
    uint32_t next_free;
};

void slotmap_fini(struct slotmap *m)
{
    free(m->slots);
    *m = (struct slotmap){0};
}

uint64_t slotmap_add(struct slotmap *m, void *item)
{
    uint32_t index;
    if (m->free != 0) {
        index = m->free - 1;
        m->free = m->slots[index].next_free;
    } else {
        assert(m->count <= SLOT_MASK);
        void *slots = m->slots;
        mem_grow(&slots, &m->capacity, m->count + 1, sizeof m->slots[0]);
        m->slots = slots;
        index = (uint32_t)m->count++;
    }
    m->serial++;
    m->items++;
    m->slots[index] = (struct slot){.id = m->serial << SLOT_BITS | index, .item = item};
    return m->slots[index].id;
}

static struct slot *find(const struct slotmap *m, uint64_t id)
{
    size_t index = id & SLOT_MASK;
    return id != 0 && index < m->count && m->slots[index].id == id ? &m->slots[index] : NULL;
}

void *slotmap_find(const struct slotmap *m, uint64_t id)
{
    struct slot *slot = find(m, id);
    return slot != NULL ? slot->item : NULL;
}

void slotmap_remove(struct slotmap *m, uint64_t id)
{
    struct slot *slot = find(m, id);
    if (slot != NULL) {
        *slot = (struct slot){.next_free = m->free};
        m->free = (uint32_t)(id & SLOT_MASK) + 1;
        m->items--;
    }
}
