#include "trainer/tokenizer_vocab.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/hash.h"
#include "lib/mem.h"

#define SLOTS_MIN 64

void vocab_fini(struct vocab *v)
{
    free(v->tokens);
    free(v->slots);
    buf_fini(&v->arena);
    *v = (struct vocab){0};
}

const uint8_t *vocab_text(const struct vocab *v, uint32_t id, size_t *bytes)
{
    if (id >= v->ids || v->tokens[id].bytes == VOCAB_NONE) {
        return NULL;
    }
    *bytes = v->tokens[id].bytes;
    return v->arena.data + v->tokens[id].at;
}

/* The slot of this text, or the empty one where it would be. */
static size_t slot_of(const struct vocab *v, const void *text, size_t bytes)
{
    size_t slot = hash_xxh3(text, bytes, 0) & (v->slot_count - 1);
    for (;; slot = (slot + 1) & (v->slot_count - 1)) {
        size_t there_bytes = 0;
        if (v->slots[slot] == VOCAB_NONE) {
            return slot;
        }
        const uint8_t *there = vocab_text(v, v->slots[slot], &there_bytes);
        if (there_bytes == bytes && memcmp(there, text, bytes) == 0) {
            return slot;
        }
    }
}

static void grow_slots(struct vocab *v)
{
    size_t count = v->slot_count == 0 ? SLOTS_MIN : 2 * v->slot_count;
    free(v->slots);
    v->slots = mem_alloc_array(count, sizeof *v->slots);
    v->slot_count = count;
    memset(v->slots, 0xff, count * sizeof *v->slots);
    for (uint32_t id = 0; id < v->ids; id++) {
        size_t bytes;
        const uint8_t *text = vocab_text(v, id, &bytes);
        if (text != NULL) {
            v->slots[slot_of(v, text, bytes)] = id;
        }
    }
}

bool vocab_find(const struct vocab *v, const void *text, size_t bytes, uint32_t *id)
{
    if (v->slot_count == 0) {
        return false;
    }
    size_t slot = slot_of(v, text, bytes);
    *id = v->slots[slot];
    return *id != VOCAB_NONE;
}

bool vocab_add(struct vocab *v, uint32_t id, const void *text, size_t bytes)
{
    uint32_t there;
    size_t there_bytes;
    assert(id < VOCAB_IDS_MAX);
    if (vocab_text(v, id, &there_bytes) != NULL || vocab_find(v, text, bytes, &there)) {
        return false;
    }
    if (id >= v->ids) {
        mem_grow((void **)&v->tokens, &v->capacity, (size_t)id + 1, sizeof *v->tokens);
        while (v->ids <= id) {
            v->tokens[v->ids++].bytes = VOCAB_NONE;
        }
    }
    if (v->slot_count < 2 * ((size_t)v->count + 1)) {
        grow_slots(v);
    }
    assert(v->arena.len + bytes < VOCAB_NONE);
    v->tokens[id] = (struct vocab_token){.at = (uint32_t)v->arena.len, .bytes = (uint32_t)bytes};
    buf_reserve(&v->arena, bytes + 1); /* an empty token has an address too */
    buf_append(&v->arena, text, bytes);
    v->count++;
    v->slots[slot_of(v, text, bytes)] = id;
    return true;
}
