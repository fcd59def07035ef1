#include "trainer/later.h"

#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "trainer/layer.h"

/* Memory of the back end that grows. */
struct room {
    float *data;
    size_t floats;
};

struct later_item {
    const struct linear *linear;
    struct op_groups groups;
    size_t *offset; /* owned; of the groups */
    size_t offsets;
    struct mat dy, x;
    struct room dy_room, x_room;
};

void later_fini(struct later *later)
{
    for (size_t i = 0; i < later->capacity; i++) {
        free(later->item[i].offset);
        later->op->release(later->item[i].dy_room.data);
        later->op->release(later->item[i].x_room.data);
    }
    free(later->item);
    *later = (struct later){0};
}

static struct mat copy_of(const struct op_table *op, struct room *room, struct mat m)
{
    size_t floats = m.rows * m.cols;
    if (floats > room->floats) {
        op->release(room->data);
        room->data = op->alloc(floats * sizeof(float));
        room->floats = floats;
    }
    struct mat copy = mat_of(room->data, m.rows, m.cols);
    op->copy(m, copy);
    return copy;
}

static void copy_groups(struct later_item *item, struct op_groups groups)
{
    size_t offsets = groups.count + 1;
    if (offsets > item->offsets) {
        free(item->offset);
        item->offset = mem_alloc_array(offsets, sizeof *item->offset);
        item->offsets = offsets;
    }
    memcpy(item->offset, groups.offset, offsets * sizeof *item->offset);
    item->groups = (struct op_groups){groups.count, item->offset};
}

static struct later_item *next_item(struct later *later)
{
    size_t before = later->capacity;
    mem_grow((void **)&later->item, &later->capacity, later->count + 1, sizeof *later->item);
    memset(later->item + before, 0, (later->capacity - before) * sizeof *later->item);
    return &later->item[later->count++];
}

void later_add(struct later *later, const struct linear *l, struct op_groups groups, struct mat dy,
               struct mat x)
{
    const char *at = (const char *)x.data;
    struct later_item *item = next_item(later);
    item->linear = l;
    copy_groups(item, groups);
    item->dy = copy_of(later->op, &item->dy_room, dy);
    item->x =
        at >= later->kept_begin && at < later->kept_end ? x : copy_of(later->op, &item->x_room, x);
}

void later_run(struct later *later, const struct ctx *c)
{
    for (size_t i = 0; i < later->count; i++) {
        const struct later_item *item = &later->item[i];
        linear_backward_weight(c, item->linear, item->groups, item->dy, item->x);
    }
    later->count = 0;
}

size_t later_bytes(const struct later *later)
{
    size_t floats = 0;
    for (size_t i = 0; i < later->capacity; i++) {
        floats += later->item[i].dy_room.floats + later->item[i].x_room.floats;
    }
    return floats * sizeof(float);
}
