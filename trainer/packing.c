/* Pieces are taken longest first; each goes into the bin where it leaves the least room, or opens
 * one. Bins wait in a list for each number of free tokens, and a bitmap says which lists are not
 * empty. */
#include "trainer/packing.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

#define NONE SIZE_MAX

struct item {
    struct piece piece;
    size_t bin;
    size_t next; /* in its bin */
};
struct bin {
    size_t first; /* item */
    uint32_t room;
    size_t next; /* of those with as much room */
};
struct packer {
    uint32_t width;
    struct item *items;
    size_t item_count, item_capacity;
    struct bin *bins;
    size_t bin_count, bin_capacity;
    size_t *with_room; /* width + 1: the first bin that has so much */
    uint64_t *bitmap;
};

static size_t new_item(struct packer *p, struct piece piece)
{
    void *grown = p->items;
    mem_grow(&grown, &p->item_capacity, p->item_count + 1, sizeof *p->items);
    p->items = grown;
    p->items[p->item_count] = (struct item){.piece = piece, .bin = NONE, .next = NONE};
    return p->item_count++;
}

static size_t new_bin(struct packer *p)
{
    void *grown = p->bins;
    mem_grow(&grown, &p->bin_capacity, p->bin_count + 1, sizeof *p->bins);
    p->bins = grown;
    p->bins[p->bin_count] = (struct bin){.first = NONE, .room = p->width, .next = NONE};
    return p->bin_count++;
}

static void put(struct packer *p, size_t bin, size_t item)
{
    assert(p->items[item].piece.tokens <= p->bins[bin].room);
    p->items[item].bin = bin;
    p->items[item].next = p->bins[bin].first;
    p->bins[bin].first = item;
    p->bins[bin].room -= p->items[item].piece.tokens;
}

static void list_bin(struct packer *p, size_t bin)
{
    uint32_t room = p->bins[bin].room;
    if (room > 0) {
        p->bins[bin].next = p->with_room[room];
        p->with_room[room] = bin;
        p->bitmap[room / 64] |= (uint64_t)1 << room % 64;
    }
}

/* Takes the bin with the least room that is enough; NONE when there is none. */
static size_t take_bin(struct packer *p, uint32_t tokens)
{
    size_t words = (size_t)p->width / 64 + 1;
    size_t word = tokens / 64;
    uint64_t bits = p->bitmap[word] & ~(uint64_t)0 << tokens % 64;
    while (bits == 0 && ++word < words) {
        bits = p->bitmap[word];
    }
    if (bits == 0) {
        return NONE;
    }
    size_t room = word * 64 + (size_t)__builtin_ctzll(bits);
    size_t bin = p->with_room[room];
    p->with_room[room] = p->bins[bin].next;
    if (p->with_room[room] == NONE) {
        p->bitmap[word] &= ~((uint64_t)1 << room % 64);
    }
    return bin;
}

static int longest_first(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    if (x->piece.tokens != y->piece.tokens) {
        return x->piece.tokens > y->piece.tokens ? -1 : 1;
    }
    return x->piece.document < y->piece.document ? -1 : x->piece.document > y->piece.document;
}

static int fullest_first(const void *a, const void *b)
{
    const struct bin *x = a, *y = b;
    if (x->room != y->room) {
        return x->room < y->room ? -1 : 1;
    }
    return x->first < y->first ? -1 : x->first > y->first; /* each has an item: no two are equal */
}

/* Whole sequences of the long documents, and the rests as items to be packed. */
static void cut_long(struct packer *p, const uint64_t *lengths, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t rest = (uint32_t)(lengths[i] % p->width);
        if (rest > 0) {
            new_item(p, (struct piece){i, rest, lengths[i] - rest});
        }
    }
    if (p->item_count > 0) { /* qsort takes no NULL */
        qsort(p->items, p->item_count, sizeof *p->items, longest_first);
    }
}

static void best_fit(struct packer *p)
{
    for (size_t i = 0; i < p->item_count; i++) {
        size_t bin = take_bin(p, p->items[i].piece.tokens);
        bin = bin == NONE ? new_bin(p) : bin;
        put(p, bin, i);
        list_bin(p, bin);
    }
}

/* The emptiest bins give their pieces, cut where they must be, to fill the others. */
static void fill_holes(struct packer *p)
{
    if (p->bin_count > 0) {
        qsort(p->bins, p->bin_count, sizeof *p->bins, fullest_first);
    }
    for (size_t to = 0; to < p->bin_count; to++) {
        while (p->bins[to].room > 0 && p->bin_count - 1 > to) {
            struct bin *from = &p->bins[p->bin_count - 1];
            size_t item = from->first;
            if (item == NONE) {
                p->bin_count--;
                continue;
            }
            struct piece *piece = &p->items[item].piece;
            if (piece->tokens <= p->bins[to].room) {
                from->first = p->items[item].next;
                put(p, to, item);
                continue;
            }
            struct piece head = {piece->document, p->bins[to].room, piece->offset};
            piece->offset += head.tokens;
            piece->tokens -= head.tokens;
            put(p, to, new_item(p, head));
        }
    }
    while (p->bin_count > 0 && p->bins[p->bin_count - 1].room > 0) {
        p->bin_count--; /* at most one: less than a sequence is left */
    }
}

static int by_document(const void *a, const void *b)
{
    const struct piece *x = a, *y = b;
    if (x->document != y->document) {
        return x->document < y->document ? -1 : 1;
    }
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

void packing_make(struct packing *out, const uint64_t *lengths, uint32_t count, uint32_t width)
{
    assert(width >= 1);
    struct packer p = {.width = width};
    p.with_room = mem_alloc_array((size_t)width + 1, sizeof *p.with_room);
    memset(p.with_room, 0xff, ((size_t)width + 1) * sizeof *p.with_room); /* NONE */
    p.bitmap = mem_alloc_array((size_t)width / 64 + 1, sizeof *p.bitmap);
    cut_long(&p, lengths, count);
    best_fit(&p);
    fill_holes(&p);

    size_t whole = 0;
    for (uint32_t i = 0; i < count; i++) {
        whole += lengths[i] / width;
    }
    *out = (struct packing){.bins = whole + p.bin_count};
    out->pieces = mem_alloc_array(whole + p.item_count + 1, sizeof *out->pieces);
    out->first = mem_alloc_array(out->bins + 1, sizeof *out->first);
    size_t bin = 0, at = 0;
    for (uint32_t i = 0; i < count; i++) {
        for (uint64_t k = 0; k < lengths[i] / width; k++) {
            out->first[bin++] = at;
            out->pieces[at++] = (struct piece){i, width, k * width};
        }
    }
    for (size_t b = 0; b < p.bin_count; b++) {
        out->first[bin++] = at;
        size_t first = at;
        for (size_t item = p.bins[b].first; item != NONE; item = p.items[item].next) {
            out->pieces[at++] = p.items[item].piece;
        }
        qsort(out->pieces + first, at - first, sizeof *out->pieces, by_document);
    }
    out->first[bin] = at;
    assert(bin == out->bins);
    free(p.items);
    free(p.bins);
    free(p.with_room);
    free(p.bitmap);
}

void packing_fini(struct packing *p)
{
    free(p->pieces);
    free(p->first);
    *p = (struct packing){0};
}
