/* Effects of one batch, in order, with the memory of what they point to. */
#ifndef DAEMON_CORE_EFFECT_LIST_H
#define DAEMON_CORE_EFFECT_LIST_H

#include "daemon/core/effect.h"

/* A zeroed one is empty and valid. */
struct effect_list {
    struct effect *items; /* owned */
    size_t count;
    size_t capacity;
    void **memory; /* owned, each item too */
    size_t memory_count;
    size_t memory_capacity;
};

void effect_list_fini(struct effect_list *list);
void effect_list_reset(struct effect_list *list);
/* A zeroed effect at the end; the pointer is good until the next one is added. */
struct effect *effect_list_add(struct effect_list *list, enum effect_kind kind, session_id session);
/* Copies that live as long as the list's items. NULL text stays NULL. */
const char *effect_list_text(struct effect_list *list, const char *text);
const uint32_t *effect_list_u32(struct effect_list *list, const uint32_t *values, size_t count);

#endif
