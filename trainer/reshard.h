/* The resharding map: pure index arithmetic from what a checkpoint's files hold to what a rank of
 * any mesh wants.
 *
 * A file holds a tensor whole, under its name, or a run of its elements in row-major order, under
 * name[first:end]. A rank wants runs too: whole weights, and the part of the optimiser's state that
 * it updates. The map says which elements of which saved tensors make up a wanted run. */
#ifndef TRAINER_RESHARD_H
#define TRAINER_RESHARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

#define RESHARD_NAME_BYTES 256

/* Elements [first, first + count) of the tensor `name`. */
struct reshard_run {
    char name[RESHARD_NAME_BYTES];
    uint64_t first, count;
    bool whole;           /* saved under the bare name */
    uint32_t file, index; /* of a saved one: which file, which tensor of it */
};
/* What is saved, by name and first element. */
struct reshard_map {
    struct reshard_run *run; /* owned */
    size_t count, capacity;
};
/* Elements [from, from + count) of saved run `run` go to element `to` of the wanted one. */
struct reshard_copy {
    const struct reshard_run *run;
    uint64_t from, to, count;
};

/* The name a run is saved under. */
void reshard_name(char out[RESHARD_NAME_BYTES], const char *name, uint64_t first, uint64_t count,
                  bool whole);
/* The other way. elements: of the saved tensor. ERR_CORRUPT when the range in the name is malformed
 * or is not of that many elements. */
int reshard_parse(struct reshard_run *run, const char *saved_name, uint64_t elements,
                  struct err *err);

void reshard_map_fini(struct reshard_map *map); /* a zeroed one is fine */
void reshard_map_add(struct reshard_map *map, const struct reshard_run *run);
/* After the last was added: sorts. ERR_CORRUPT when an element is saved twice: then *again is one
 * run and *before the one it overlaps. */
int reshard_map_sort(struct reshard_map *map, const struct reshard_run **before,
                     const struct reshard_run **again);
/* The first saved run of a tensor, or NULL. */
const struct reshard_run *reshard_map_first(const struct reshard_map *map, const char *name);
/* The copies that make up elements [first, first + count) of `name`, in order; *copies is malloc'd.
 * ERR_CORRUPT when some are nowhere saved: the text says which. */
int reshard_map_find(const struct reshard_map *map, const char *name, uint64_t first,
                     uint64_t count, struct reshard_copy **copies, size_t *copy_count,
                     struct err *err);

#endif
