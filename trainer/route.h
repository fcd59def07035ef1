/* Where tokens go in a mixture of experts: pure index arithmetic, no floating point, no memory of
 * its own.
 *
 * A pair is one (token, slot) choice of the router, numbered token * top_k + slot. On the rank of
 * the tokens the pairs are sorted by expert, ties in pair order; as experts are consecutive over
 * the ranks of the expert group that also groups them by rank. A rank receives from each source a
 * run sorted by expert and merges the runs to (expert, source, pair) order: the order one rank with
 * all tokens would have. */
#ifndef TRAINER_ROUTE_H
#define TRAINER_ROUTE_H

#include <stddef.h>
#include <stdint.h>

/* expert[pairs] in [0, experts). count[experts]: pairs of each expert; place[pair]: its position in
 * sorted order; token[position]: the token at a position. */
void route_sort(const int32_t *expert, size_t pairs, size_t top_k, size_t experts, uint32_t *count,
                uint32_t *place, uint32_t *token);

/* counts[source * local + e]: rows received from a source for local expert e, in that order of
 * arrival. offset[local + 1]: where each expert's rows start once merged; from[row]: the arrival
 * position of a merged row; to[position]: the merged row of an arrival. Returns the number of rows.
 */
size_t route_merge(const uint32_t *counts, size_t sources, size_t local, size_t *offset,
                   uint32_t *from, uint32_t *to);

#endif
