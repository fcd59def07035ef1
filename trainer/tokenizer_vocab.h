/* Tokens by id and by text. */
#ifndef TRAINER_TOKENIZER_VOCAB_H
#define TRAINER_TOKENIZER_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"

#define VOCAB_IDS_MAX   (1u << 22)
#define VOCAB_TOKEN_MAX (1u << 16) /* bytes of one token */

struct vocab_token {
    uint32_t at, bytes; /* in the arena; bytes VOCAB_NONE: the id has no token */
};
#define VOCAB_NONE UINT32_MAX

struct vocab {
    struct vocab_token *tokens; /* owned; by id */
    uint32_t ids;               /* all are below */
    size_t capacity;
    uint32_t count; /* tokens; not more than ids, fewer where ids have gaps */
    struct buf arena;
    uint32_t *slots; /* owned; ids by the hash of their text, VOCAB_NONE is empty */
    size_t slot_count;
};

void vocab_fini(struct vocab *v); /* a zeroed one is empty and valid */
/* False, and nothing is added, when the id or the text is there already. id < VOCAB_IDS_MAX. */
bool vocab_add(struct vocab *v, uint32_t id, const void *text, size_t bytes);
bool vocab_find(const struct vocab *v, const void *text, size_t bytes, uint32_t *id);
/* NULL when the id has no token. */
const uint8_t *vocab_text(const struct vocab *v, uint32_t id, size_t *bytes);

#endif
