/* Gradients of weights put off: what linear_backward_weight was called with during a backward pass,
 * to be done at another time, in the same order. Inside the model only. */
#ifndef TRAINER_LATER_H
#define TRAINER_LATER_H

#include <stddef.h>

#include "trainer/op.h"

struct ctx;
struct linear;
struct later_item;

struct later {
    const struct op_table *op; /* borrowed */
    /* Activations between these stay as they are until then; others, and the gradients, are copied.
     */
    const char *kept_begin, *kept_end;
    struct later_item *item; /* owned */
    size_t count, capacity;  /* the memory of past ones is used again */
};

void later_fini(struct later *later);
void later_add(struct later *later, const struct linear *l, struct op_groups groups, struct mat dy,
               struct mat x);
/* Does what was put off and forgets it. c->later is not this one. */
void later_run(struct later *later, const struct ctx *c);
size_t later_bytes(const struct later *later);

#endif
