#include "trainer/route.h"

void route_sort(const int32_t *expert, size_t pairs, size_t top_k, size_t experts, uint32_t *count,
                uint32_t *place, uint32_t *token)
{
    for (size_t e = 0; e < experts; e++) {
        count[e] = 0;
    }
    for (size_t i = 0; i < pairs; i++) {
        count[expert[i]]++;
    }
    /* count becomes each expert's next free position, and is put back afterwards */
    uint32_t start = 0;
    for (size_t e = 0; e < experts; e++) {
        uint32_t n = count[e];
        count[e] = start;
        start += n;
    }
    for (size_t i = 0; i < pairs; i++) {
        place[i] = count[expert[i]]++;
        token[place[i]] = (uint32_t)(i / top_k);
    }
    for (size_t e = experts; e-- > 1;) {
        count[e] -= count[e - 1];
    }
}

size_t route_merge(const uint32_t *counts, size_t sources, size_t local, size_t *offset,
                   uint32_t *from, uint32_t *to)
{
    size_t row = 0;
    for (size_t e = 0; e < local; e++) {
        offset[e] = row;
        size_t arrival = 0;
        for (size_t s = 0; s < sources; s++) {
            for (size_t i = 0; i < local; i++) {
                uint32_t n = counts[s * local + i];
                for (uint32_t j = 0; i == e && j < n; j++, row++) {
                    from[row] = (uint32_t)(arrival + j);
                    to[arrival + j] = (uint32_t)row;
                }
                arrival += n;
            }
        }
    }
    offset[local] = row;
    return row;
}
