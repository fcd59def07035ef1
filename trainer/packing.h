/* Packs documents into sequences of one length, cutting as few as possible (best-fit packing: Ding
 * et al., "Fewer Truncations Improve Language Modeling", ICML 2024; what the DeepSeek-V3 report,
 * section 4.1, calls document packing). A document longer than a sequence is cut into whole ones,
 * and its rest is packed like a short document. There is no padding: the holes that best fit leaves
 * are filled with the pieces of the emptiest sequences. Pure. */
#ifndef TRAINER_PACKING_H
#define TRAINER_PACKING_H

#include <stddef.h>
#include <stdint.h>

struct piece {
    uint32_t document; /* index in the list that was packed */
    uint32_t tokens;   /* at least 1 */
    uint64_t offset;   /* in the document */
};
struct packing {
    size_t bins;          /* each holds `width` tokens exactly */
    struct piece *pieces; /* owned; bin after bin, in a bin by document and offset */
    size_t *first;        /* owned; bins + 1 of them: bin i is pieces [first[i], first[i + 1]) */
};

/* Every token is in at most one bin; fewer than `width` are left out, so that bins is the sum of
 * the lengths / width, rounded down. A length of 0 is fine. */
void packing_make(struct packing *p, const uint64_t *lengths, uint32_t count, uint32_t width);
void packing_fini(struct packing *p); /* a zeroed one is fine */

#endif
