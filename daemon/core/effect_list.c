#include "daemon/core/effect_list.h"

#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

void effect_list_reset(struct effect_list *list)
{
    for (size_t i = 0; i < list->memory_count; i++) {
        free(list->memory[i]);
    }
    list->memory_count = 0;
    list->count = 0;
}

void effect_list_fini(struct effect_list *list)
{
    effect_list_reset(list);
    free(list->items);
    free(list->memory);
    *list = (struct effect_list){0};
}

struct effect *effect_list_add(struct effect_list *list, enum effect_kind kind, session_id session)
{
    void *items = list->items;
    mem_grow(&items, &list->capacity, list->count + 1, sizeof *list->items);
    list->items = items;
    struct effect *effect = &list->items[list->count++];
    *effect = (struct effect){.kind = kind, .session = session};
    return effect;
}

static void *copy(struct effect_list *list, const void *data, size_t bytes)
{
    void *memory = list->memory;
    mem_grow(&memory, &list->memory_capacity, list->memory_count + 1, sizeof *list->memory);
    list->memory = memory;
    void *block = mem_alloc(bytes);
    list->memory[list->memory_count++] = block;
    memcpy(block, data, bytes);
    return block;
}

const char *effect_list_text(struct effect_list *list, const char *text)
{
    return text == NULL ? NULL : copy(list, text, strlen(text) + 1);
}

const uint32_t *effect_list_u32(struct effect_list *list, const uint32_t *values, size_t count)
{
    return count == 0 ? NULL : copy(list, values, count * sizeof *values);
}
