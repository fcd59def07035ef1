#include "trainer/hier.h"

#include <stdbool.h>
#include <stdlib.h>

#include "lib/mem.h"

static uint32_t rank_of(const struct hier *h, int32_t expert)
{
    return (uint32_t)expert / h->each;
}

void hier_hop_fini(struct hier_hop *hop)
{
    free(hop->row);
    free(hop->sent);
    *hop = (struct hier_hop){0};
}

/* Which peer a choice leads to: its node, or its rank when that is in this node; -1: neither. */
static int64_t peer_of(const struct hier *h, int32_t expert, bool within)
{
    uint32_t rank = rank_of(h, expert);
    if (!within) {
        return rank / h->locals;
    }
    return rank / h->locals == h->node ? (int64_t)(rank % h->locals) : -1;
}

/* Does one of the row's choices lead there? */
static bool goes(const struct hier *h, const int32_t *expert, uint32_t peer, bool within)
{
    for (uint32_t k = 0; k < h->top_k; k++) {
        if (peer_of(h, expert[k], within) == (int64_t)peer) {
            return true;
        }
    }
    return false;
}

static void make_hop(const struct hier *h, const int32_t *expert, size_t rows, bool within,
                     struct hier_hop *hop)
{
    uint32_t peers = within ? h->locals : h->nodes;
    size_t most = peers < h->top_k ? peers : h->top_k;
    *hop = (struct hier_hop){.row = mem_alloc_array(rows * most, sizeof *hop->row),
                             .sent = mem_alloc_array(peers, sizeof *hop->sent),
                             .peers = peers};
    for (uint32_t p = 0; p < peers; p++) {
        for (size_t r = 0; r < rows; r++) {
            if (goes(h, expert + r * h->top_k, p, within)) {
                hop->row[hop->rows++] = (uint32_t)r;
                hop->sent[p]++;
            }
        }
    }
}

void hier_between(const struct hier *h, const int32_t *expert, size_t tokens, struct hier_hop *hop)
{
    make_hop(h, expert, tokens, false, hop);
}

void hier_within(const struct hier *h, const int32_t *expert, size_t rows, struct hier_hop *hop)
{
    make_hop(h, expert, rows, true, hop);
}

size_t hier_expand(const struct hier *h, const int32_t *expert, const size_t *received,
                   uint32_t *row, uint32_t *slot, size_t *offset)
{
    uint32_t first = (h->node * h->locals + h->local) * h->each;
    size_t pairs = 0;
    size_t *begin = mem_alloc_array((size_t)h->locals * h->nodes, sizeof *begin);
    for (size_t i = 0, at = 0; i < (size_t)h->locals * h->nodes; i++) {
        begin[i] = at;
        at += received[i];
    }
    for (uint32_t e = 0; e < h->each; e++) {
        offset[e] = pairs;
        for (uint32_t source = 0; source < h->nodes * h->locals; source++) {
            size_t from = (size_t)(source % h->locals) * h->nodes + source / h->locals;
            for (size_t r = begin[from]; r < begin[from] + received[from]; r++) {
                for (uint32_t k = 0; k < h->top_k; k++) {
                    if ((uint32_t)expert[r * h->top_k + k] == first + e) {
                        row[pairs] = (uint32_t)r;
                        slot[pairs++] = k;
                    }
                }
            }
        }
    }
    offset[h->each] = pairs;
    free(begin);
    return pairs;
}

void hier_sum(const struct hier_hop *hop, const float *part, size_t cols, float *out)
{
    for (size_t i = 0; i < hop->rows; i++) {
        float *sum = out + (size_t)hop->row[i] * cols;
        for (size_t c = 0; c < cols; c++) {
            sum[c] += part[i * cols + c];
        }
    }
}
