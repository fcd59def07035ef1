/* Dispatch and combine in two hops against what one all-to-all among all ranks gives: random
 * groups of nodes, random choices of experts, skewed and empty too. All ranks are played here; a
 * row is its number, so sums are exact. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "tests/unit/random.h"
#include "trainer/hier.h"

enum { RANKS_MAX = 32 };

struct rows { /* what one rank holds at one stage */
    float *x; /* one number a row: its name */
    int32_t *expert;
    size_t count;
};

struct group {
    struct hier shape;
    uint32_t ranks;
    struct rows own[RANKS_MAX], arrived[RANKS_MAX], local[RANKS_MAX];
    struct hier_hop between[RANKS_MAX], within[RANKS_MAX];
    size_t from_node[RANKS_MAX][RANKS_MAX];            /* rows arrived from each node */
    size_t received[RANKS_MAX][RANKS_MAX * RANKS_MAX]; /* [locals][nodes] */
};

static struct hier of_rank(const struct group *g, uint32_t rank)
{
    struct hier h = g->shape;
    h.node = rank / h.locals;
    h.local = rank % h.locals;
    return h;
}

static struct rows make_rows(const struct group *g, size_t count)
{
    return (struct rows){mem_alloc_array(count, sizeof(float)),
                         mem_alloc_array(count * g->shape.top_k, sizeof(int32_t)), count};
}

static void copy_row(const struct group *g, const struct rows *from, size_t i, struct rows *to,
                     size_t at)
{
    size_t k = g->shape.top_k;
    to->x[at] = from->x[i];
    memcpy(to->expert + at * k, from->expert + i * k, k * sizeof(int32_t));
}

/* Distinct experts, in at most `limit` nodes. */
static void choose(const struct group *g, int32_t *expert, uint32_t limit, bool skewed)
{
    const struct hier *h = &g->shape;
    uint32_t experts = g->ranks * h->each, of_node = h->locals * h->each;
    uint32_t node[RANKS_MAX], nodes = 0;
    while (nodes < limit) {
        node[nodes++] = (uint32_t)random_below(h->nodes);
    }
    for (uint32_t k = 0; k < h->top_k; k++) {
        bool again = true;
        for (uint32_t tries = 0; again; tries++) {
            uint32_t in = node[random_below(limit)];
            expert[k] = tries > 50 ? (int32_t)random_below(experts)
                        : skewed   ? (int32_t)(random_below(h->top_k + 1) % experts)
                                   : (int32_t)(in * of_node + random_below(of_node));
            again = false;
            for (uint32_t j = 0; j < k; j++) {
                again |= expert[j] == expert[k];
            }
        }
    }
}

static void start(struct group *g, bool skewed)
{
    memset(g, 0, sizeof *g);
    g->shape = (struct hier){.nodes = 1 + (uint32_t)random_below(4),
                             .locals = 1 + (uint32_t)random_below(8),
                             .each = 1 + (uint32_t)random_below(4)};
    g->ranks = g->shape.nodes * g->shape.locals;
    uint32_t experts = g->ranks * g->shape.each;
    g->shape.top_k = 1 + (uint32_t)random_below(experts < 8 ? experts : 8);
    uint32_t limit = 1 + (uint32_t)random_below(g->shape.nodes);
    for (uint32_t r = 0; r < g->ranks; r++) {
        g->own[r] = make_rows(g, random_one_in(6) ? 0 : random_below(40));
        for (size_t t = 0; t < g->own[r].count; t++) {
            g->own[r].x[t] = (float)(r * 100 + t);
            choose(g, g->own[r].expert + t * g->shape.top_k, limit, skewed);
        }
    }
}

/* The first hop: to the rank with the same index of each node. */
static void cross(struct group *g)
{
    const struct hier *h = &g->shape;
    for (uint32_t r = 0; r < g->ranks; r++) {
        struct hier me = of_rank(g, r);
        hier_between(&me, g->own[r].expert, g->own[r].count, &g->between[r]);
        for (uint32_t n = 0; n < h->nodes; n++) {
            g->from_node[n * h->locals + me.local][me.node] = g->between[r].sent[n];
        }
    }
    for (uint32_t r = 0; r < g->ranks; r++) {
        struct hier me = of_rank(g, r);
        size_t total = 0, at = 0;
        for (uint32_t n = 0; n < h->nodes; n++) {
            total += g->from_node[r][n];
        }
        g->arrived[r] = make_rows(g, total);
        for (uint32_t n = 0; n < h->nodes; n++) {
            uint32_t source = n * h->locals + me.local;
            const struct hier_hop *hop = &g->between[source];
            size_t first = 0;
            for (uint32_t p = 0; p < me.node; p++) {
                first += hop->sent[p];
            }
            for (size_t i = 0; i < hop->sent[me.node]; i++) {
                copy_row(g, &g->own[source], hop->row[first + i], &g->arrived[r], at++);
            }
        }
    }
}

/* The second: to the ranks of the node. Who got how much from which node is counted from what was
 * sent, as the real thing sends its counts ahead. */
static void forward(struct group *g)
{
    const struct hier *h = &g->shape;
    for (uint32_t r = 0; r < g->ranks; r++) {
        struct hier me = of_rank(g, r);
        hier_within(&me, g->arrived[r].expert, g->arrived[r].count, &g->within[r]);
        size_t i = 0;
        for (uint32_t l = 0; l < h->locals; l++) {
            uint32_t to = me.node * h->locals + l;
            for (size_t n = 0; n < g->within[r].sent[l]; n++, i++) {
                size_t row = g->within[r].row[i], end = 0;
                uint32_t node = 0;
                while (row >= (end += g->from_node[r][node])) {
                    node++;
                }
                g->received[to][me.local * h->nodes + node]++;
            }
        }
    }
    for (uint32_t r = 0; r < g->ranks; r++) {
        struct hier me = of_rank(g, r);
        size_t total = 0, at = 0;
        for (size_t i = 0; i < (size_t)h->locals * h->nodes; i++) {
            total += g->received[r][i];
        }
        g->local[r] = make_rows(g, total);
        for (uint32_t l = 0; l < h->locals; l++) {
            uint32_t source = me.node * h->locals + l;
            const struct hier_hop *hop = &g->within[source];
            size_t first = 0;
            for (uint32_t p = 0; p < me.local; p++) {
                first += hop->sent[p];
            }
            for (size_t i = 0; i < hop->sent[me.local]; i++) {
                copy_row(g, &g->arrived[source], hop->row[first + i], &g->local[r], at++);
            }
        }
    }
}

/* expert's share of the sum that its token gets back. */
static float worth(float x, int32_t expert)
{
    return x + 3 * (float)expert;
}

/* Every expert has the rows it would have had, in that order; gives each row back the sum over this
 * rank's experts. */
static float *check_experts(const struct group *g, uint32_t rank)
{
    struct hier me = of_rank(g, rank);
    uint32_t k = me.top_k;
    const struct rows *here = &g->local[rank];
    uint32_t *row = mem_alloc_array(here->count * k, sizeof *row);
    uint32_t *slot = mem_alloc_array(here->count * k, sizeof *slot);
    size_t *offset = mem_alloc_array(me.each + 1, sizeof *offset);
    float *part = mem_alloc_array(here->count, sizeof *part);
    size_t pairs = hier_expand(&me, here->expert, g->received[rank], row, slot, offset);
    size_t at = 0;
    for (uint32_t e = 0; e < me.each; e++) {
        assert_int_equal(offset[e], at);
        int32_t expert = (int32_t)(rank * me.each + e);
        for (uint32_t source = 0; source < g->ranks; source++) {
            for (size_t t = 0; t < g->own[source].count; t++) {
                for (uint32_t j = 0; j < k; j++) {
                    if (g->own[source].expert[t * k + j] == expert) {
                        assert_true(at < pairs);
                        assert_true(here->x[row[at]] == g->own[source].x[t]);
                        assert_int_equal(slot[at], j);
                        part[row[at]] += worth(here->x[row[at]], expert);
                        at++;
                    }
                }
            }
        }
    }
    assert_int_equal(at, pairs);
    assert_int_equal(offset[me.each], pairs);
    free(row);
    free(slot);
    free(offset);
    return part;
}

/* The parts of one hop's rows, brought back to who sent them: peer p's are after those of the peers
 * before it, and within them this sender's after those of the senders before it. */
static void bring_back(const struct hier_hop *hop, uint32_t peer, const float *part, size_t first,
                       float *back)
{
    size_t at = 0;
    for (uint32_t p = 0; p < peer; p++) {
        at += hop->sent[p];
    }
    memcpy(back + at, part + first, hop->sent[peer] * sizeof *back);
}

static void combine(const struct group *g)
{
    const struct hier *h = &g->shape;
    float *part[RANKS_MAX], *sum[RANKS_MAX];
    for (uint32_t r = 0; r < g->ranks; r++) {
        part[r] = check_experts(g, r);
    }
    for (uint32_t r = 0; r < g->ranks; r++) { /* over the ranks of the node */
        struct hier me = of_rank(g, r);
        float *back = mem_alloc_array(g->within[r].rows, sizeof *back);
        for (uint32_t l = 0; l < h->locals; l++) {
            uint32_t peer = me.node * h->locals + l;
            size_t first = 0;
            for (uint32_t before = 0; before < me.local; before++) {
                first += g->within[me.node * h->locals + before].sent[l];
            }
            bring_back(&g->within[r], l, part[peer], first, back);
        }
        sum[r] = mem_alloc_array(g->arrived[r].count, sizeof **sum);
        hier_sum(&g->within[r], back, 1, sum[r]);
        free(back);
    }
    for (uint32_t r = 0; r < g->ranks; r++) { /* over the nodes */
        struct hier me = of_rank(g, r);
        float *back = mem_alloc_array(g->between[r].rows, sizeof *back);
        float *out = mem_alloc_array(g->own[r].count, sizeof *out);
        for (uint32_t n = 0; n < h->nodes; n++) {
            uint32_t peer = n * h->locals + me.local;
            size_t first = 0;
            for (uint32_t before = 0; before < me.node; before++) {
                first += g->from_node[peer][before];
            }
            bring_back(&g->between[r], n, sum[peer], first, back);
        }
        hier_sum(&g->between[r], back, 1, out);
        for (size_t t = 0; t < g->own[r].count; t++) {
            float expected = 0;
            for (uint32_t k = 0; k < h->top_k; k++) {
                expected += worth(g->own[r].x[t], g->own[r].expert[t * h->top_k + k]);
            }
            assert_true(out[t] == expected);
        }
        free(back);
        free(out);
    }
    for (uint32_t r = 0; r < g->ranks; r++) {
        free(part[r]);
        free(sum[r]);
    }
}

/* No token is on a wire twice for the same place. */
static void check_economy(const struct group *g)
{
    const struct hier *h = &g->shape;
    for (uint32_t r = 0; r < g->ranks; r++) {
        size_t crossings = 0;
        for (size_t t = 0; t < g->own[r].count; t++) {
            uint64_t nodes = 0;
            for (uint32_t k = 0; k < h->top_k; k++) {
                int32_t e = g->own[r].expert[t * h->top_k + k];
                nodes |= UINT64_C(1) << ((uint32_t)e / h->each / h->locals);
            }
            crossings += (size_t)__builtin_popcountll(nodes);
        }
        assert_int_equal(g->between[r].rows, crossings);
    }
}

static void finish(struct group *g)
{
    for (uint32_t r = 0; r < g->ranks; r++) {
        struct rows *all[] = {&g->own[r], &g->arrived[r], &g->local[r]};
        for (int i = 0; i < 3; i++) {
            free(all[i]->x);
            free(all[i]->expert);
        }
        hier_hop_fini(&g->between[r]);
        hier_hop_fini(&g->within[r]);
    }
}

static void test_two_hops(void **state)
{
    (void)state;
    static struct group g;
    for (int round = 0; round < 400; round++) {
        start(&g, round % 5 == 0);
        cross(&g);
        check_economy(&g);
        forward(&g);
        combine(&g);
        finish(&g);
    }
}

int main(void)
{
    random_start("test_hier");
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_two_hops)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
