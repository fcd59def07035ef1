/* Dispatch and combine over an expert group of several nodes, in two hops (report 3.2.2): a token
 * goes once to each node that has an expert of its choice, to the rank with the source's index
 * there; inside the node once to each rank that has one. What comes back is summed where it was
 * split: over the ranks of a node before it crosses to the source's, then over the nodes. Pure
 * index arithmetic; moving the rows is the caller's, with two all-to-alls each way. Rank = node *
 * locals + local; experts [rank * each, (rank + 1) * each) live on it. */
#ifndef TRAINER_HIER_H
#define TRAINER_HIER_H

#include <stddef.h>
#include <stdint.h>

struct hier {
    uint32_t nodes, locals; /* of the expert group; nodes * locals ranks */
    uint32_t node, local;   /* of this rank */
    uint32_t each;          /* experts of a rank */
    uint32_t top_k;
};

/* Rows that leave for one hop's peers (nodes, or ranks of this node), in the order of the peers and
 * for one peer in the order they are held here. The choices of a row, [top_k] expert ids, travel
 * with it. */
struct hier_hop {
    uint32_t *row; /* owned; [rows]: which of the rows held here */
    size_t *sent;  /* owned; [peers]: rows to each */
    size_t rows;
    uint32_t peers;
};
void hier_hop_fini(struct hier_hop *hop); /* a zeroed one is fine */

/* The first hop, of this rank's own tokens. expert: [tokens][top_k]. */
void hier_between(const struct hier *h, const int32_t *expert, size_t tokens, struct hier_hop *hop);
/* The second, of the rows that arrived from all nodes, in the order of the nodes. expert:
 * [rows][top_k]. */
void hier_within(const struct hier *h, const int32_t *expert, size_t rows, struct hier_hop *hop);

/* What a rank's experts work on, of the rows that arrived from the ranks of its node in their
 * order: pairs (row, choice) sorted by expert, source rank, token, which is the order that one
 * all-to-all among all ranks would give. received: [locals][nodes] rows that each rank of the node
 * forwarded from each node. row: [rows * top_k] at most, source row of each pair; slot: which of
 * its choices; offset: [each + 1]. Returns the number of pairs. */
size_t hier_expand(const struct hier *h, const int32_t *expert, const size_t *received,
                   uint32_t *row, uint32_t *slot, size_t *offset);

/* The way back: out[hop->row[i]] += part[i], in the order of i, rows of `cols` numbers. Used with
 * the second hop's rows, then with the first's. */
void hier_sum(const struct hier_hop *hop, const float *part, size_t cols, float *out);

#endif
