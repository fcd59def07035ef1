#include "trainer/tokenizer_bpe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/hash.h"
#include "lib/mem.h"
#include "trainer/tokenizer_alphabet.h"
#include "trainer/tokenizer_merges.h"
#include "trainer/tokenizer_unicode.h"

#define MERGES_MAX (1u << 23)
#define NO_ID      UINT32_MAX

struct bpe {
    struct vocab vocab; /* as the file spells them */
    struct vocab words; /* byte_level and ignore_merges: as bytes */
    struct merges merges;
    uint32_t byte_ids[256];       /* byte_level: of a byte; else of an ASCII character; or NO_ID */
    uint32_t fallback_ids[256];   /* byte_fallback: of <0x00> ...; or NO_ID */
    uint32_t unknown_id;          /* or NO_ID */
    bool byte_level, whole_bytes; /* whole_bytes: byte_level, and each byte has its token */
    bool ignore_merges, byte_fallback, fuse_unknown;
};

/* ---- loading */

static int load_options(struct bpe *b, const struct json_at *at, struct err *err)
{
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    struct json_at dropout = json_at_key(at, "dropout");
    struct json_at fuse = json_at_key(at, "fuse_unk");
    struct json_at fallback = json_at_key(at, "byte_fallback");
    struct json_at ignore = json_at_key(at, "ignore_merges");
    TRY(json_at_only(at,
                     "type dropout unk_token continuing_subword_prefix end_of_word_suffix fuse_unk "
                     "byte_fallback ignore_merges vocab merges",
                     err));
    if (!json_at_none(&dropout) && json_number_value(dropout.value) != 0) {
        return json_at_refuse(&dropout, err, "random merges are not supported");
    }
    for (size_t i = 0; i < 2; i++) {
        struct json_at affix = json_at_key(at, affixes[i]);
        if (!json_at_none(&affix) && json_string_length(affix.value) > 0) {
            return json_at_refuse(&affix, err, "not supported");
        }
    }
    TRY(json_at_bool_or(&fuse, false, &b->fuse_unknown, err));
    TRY(json_at_bool_or(&fallback, false, &b->byte_fallback, err));
    return json_at_bool_or(&ignore, false, &b->ignore_merges, err);
}

static int load_vocab(struct bpe *b, const struct json_at *at, struct err *err)
{
    const char *token;
    json_t *value;
    struct json_at vocab = json_at_key(at, "vocab");
    TRY(json_at_object(&vocab, err));
    if (json_object_size(vocab.value) > VOCAB_IDS_MAX) {
        return json_at_refuse(&vocab, err, "more than %u tokens", VOCAB_IDS_MAX);
    }
    json_object_foreach((json_t *)vocab.value, token, value)
    {
        struct json_at item = json_at_key(&vocab, token);
        size_t bytes = strlen(token);
        uint32_t id;
        TRY(json_at_u32(&item, VOCAB_IDS_MAX - 1, &id, err));
        if (bytes > VOCAB_TOKEN_MAX) {
            return json_at_refuse(&vocab, err, "token %u is longer than %u bytes", id,
                                  VOCAB_TOKEN_MAX);
        }
        if (!vocab_add(&b->vocab, id, token, bytes)) { /* the parser has refused equal keys */
            size_t length;
            const uint8_t *other = vocab_text(&b->vocab, id, &length);
            return json_at_refuse(&item, err, "\"%.*s\" has this id too", (int)length,
                                  (const char *)other);
        }
    }
    return 0;
}

/* The two tokens of a merge: "left right", or ["left", "right"]. */
static int read_merge(const struct json_at *at, char *left, char *right, struct err *err)
{
    const char *parts[2] = {json_string_value(json_array_get(at->value, 0)),
                            json_string_value(json_array_get(at->value, 1))};
    size_t bytes[2] = {0};
    if (json_is_string(at->value)) {
        const char *text = json_string_value(at->value);
        const char *space = strchr(text, ' ');
        if (space != NULL && strchr(space + 1, ' ') == NULL) {
            parts[0] = text;
            bytes[0] = (size_t)(space - text);
            parts[1] = space + 1;
            bytes[1] = strlen(parts[1]);
        }
    } else if (json_array_size(at->value) == 2 && parts[0] != NULL && parts[1] != NULL) {
        bytes[0] = strlen(parts[0]);
        bytes[1] = strlen(parts[1]);
    } else {
        parts[0] = NULL;
    }
    if (parts[0] == NULL || bytes[0] > VOCAB_TOKEN_MAX || bytes[1] > VOCAB_TOKEN_MAX) {
        return json_at_refuse(at, err, "two tokens are needed, \"left right\" or a list of both");
    }
    memcpy(left, parts[0], bytes[0]);
    left[bytes[0]] = 0;
    memcpy(right, parts[1], bytes[1]);
    right[bytes[1]] = 0;
    return 0;
}

static int load_merge(struct bpe *b, const struct json_at *at, uint32_t rank, char *left,
                      char *right, struct err *err)
{
    uint32_t ids[3];
    TRY(read_merge(at, left, right, err));
    const char *missing = left;
    if (vocab_find(&b->vocab, left, strlen(left), &ids[0])) {
        missing = right;
        if (vocab_find(&b->vocab, right, strlen(right), &ids[1])) {
            missing = strcat(left, right);
            if (vocab_find(&b->vocab, left, strlen(left), &ids[2])) {
                merges_set(&b->merges, ids[0], ids[1], rank, ids[2]);
                return 0;
            }
        }
    }
    return json_at_refuse(at, err, "the vocabulary has no token \"%.100s\"", missing);
}

static int load_merges(struct bpe *b, const struct json_at *at, struct err *err)
{
    struct json_at merges = json_at_key(at, "merges");
    size_t count;
    TRY(json_at_array(&merges, &count, err));
    if (count > MERGES_MAX) {
        return json_at_refuse(&merges, err, "more than %u merges", MERGES_MAX);
    }
    merges_init(&b->merges, count);
    char *left = mem_alloc(2 * VOCAB_TOKEN_MAX + 1);
    char *right = mem_alloc(VOCAB_TOKEN_MAX + 1);
    int rc = 0;
    uint32_t rank = 0;
    for (size_t i = 0; i < count && rc == 0; i++) {
        struct json_at item = json_at_item(&merges, i);
        const char *text = json_string_value(item.value);
        if (text == NULL || strncmp(text, "#version", 8) != 0) { /* a line of the old merges.txt */
            rc = load_merge(b, &item, rank++, left, right, err);
        }
    }
    free(left);
    free(right);
    return rc;
}

static void find_char(const struct bpe *b, uint32_t c, uint32_t *id)
{
    uint8_t text[4];
    if (!vocab_find(&b->vocab, text, unicode_put(c, text), id)) {
        *id = NO_ID;
    }
}

static int find_special_ids(struct bpe *b, const struct json_at *at, struct err *err)
{
    struct json_at unknown = json_at_key(at, "unk_token");
    b->unknown_id = NO_ID;
    if (!json_at_none(&unknown)) {
        const char *text;
        size_t bytes;
        TRY(json_at_text(&unknown, &text, &bytes, err));
        if (!vocab_find(&b->vocab, text, bytes, &b->unknown_id)) {
            b->unknown_id = NO_ID; /* which matters only where it is needed, see below */
        }
    }
    for (uint32_t byte = 0; byte < 256; byte++) {
        char name[8];
        int bytes = snprintf(name, sizeof name, "<0x%02X>", byte);
        if (!b->byte_fallback ||
            !vocab_find(&b->vocab, name, (size_t)bytes, &b->fallback_ids[byte])) {
            b->fallback_ids[byte] = NO_ID;
        }
        b->byte_ids[byte] = NO_ID;
        if (b->byte_level || byte < 0x80) {
            find_char(b, b->byte_level ? alphabet_char((uint8_t)byte) : byte, &b->byte_ids[byte]);
        }
    }
    return 0;
}

/* Text that no token can spell would vanish without a word. */
static int check_whole(struct bpe *b, const struct json_at *at, struct err *err)
{
    struct json_at vocab = json_at_key(at, "vocab");
    b->whole_bytes = b->byte_level;
    for (uint32_t byte = 0; byte < 256; byte++) {
        bool missing = b->byte_level ? b->byte_ids[byte] == NO_ID : b->fallback_ids[byte] == NO_ID;
        b->whole_bytes = b->whole_bytes && !missing;
        if (b->byte_level && missing) { /* the bytes of the character of the alphabet, then */
            uint8_t text[4];
            size_t length = unicode_put(alphabet_char((uint8_t)byte), text);
            missing = false;
            for (size_t i = 0; i < length; i++) {
                missing = missing || b->fallback_ids[text[i]] == NO_ID;
            }
        }
        if (missing && b->unknown_id == NO_ID) {
            return json_at_refuse(&vocab, err,
                                  b->byte_level
                                      ? "byte 0x%02X has no token (the character U+%04X), and "
                                        "unk_token is none: text would be lost"
                                      : "there is neither a token <0x%02X> (for byte_fallback) nor "
                                        "an unk_token: text would be lost",
                                  byte, alphabet_char((uint8_t)byte));
        }
    }
    return 0;
}

static void find_words(struct bpe *b)
{
    struct buf word = {0};
    for (uint32_t id = 0; id < b->vocab.ids; id++) {
        size_t bytes;
        const uint8_t *text = vocab_text(&b->vocab, id, &bytes);
        buf_reset(&word);
        if (text != NULL && alphabet_append_bytes(text, bytes, &word)) {
            vocab_add(&b->words, id, word.data, word.len);
        }
    }
    buf_fini(&word);
}

static int load(struct bpe *b, const struct json_at *at, struct err *err)
{
    const char *type;
    struct json_at key = json_at_key(at, "type");
    TRY(json_at_object(at, err));
    if (!json_at_none(&key)) { /* files of old versions have none */
        TRY(json_at_type(at, &type, err));
        if (strcmp(type, "BPE") != 0) {
            return json_at_refuse(&key, err, "not supported (BPE is)");
        }
    }
    TRY(load_options(b, at, err));
    TRY(load_vocab(b, at, err));
    TRY(load_merges(b, at, err));
    TRY(find_special_ids(b, at, err));
    TRY(check_whole(b, at, err));
    if (b->byte_level && b->ignore_merges) {
        find_words(b);
    }
    return 0;
}

int bpe_load(struct bpe **b, const struct json_at *at, bool byte_level, struct err *err)
{
    *b = mem_alloc(sizeof **b);
    (*b)->byte_level = byte_level;
    int rc = load(*b, at, err);
    if (rc != 0) {
        bpe_destroy(*b);
        *b = NULL;
    }
    return rc;
}

void bpe_destroy(struct bpe *b)
{
    if (b != NULL) {
        vocab_fini(&b->vocab);
        vocab_fini(&b->words);
        merges_fini(&b->merges);
        free(b);
    }
}

const struct vocab *bpe_vocab(const struct bpe *b)
{
    return &b->vocab;
}

/* ---- encoding */

/* A piece and its ids, in one line of the processor's cache. Most pieces of a text have been there
 * before; a new one takes the place of what was in its entry. */
#define ENTRY_BYTES   24
#define ENTRY_IDS     9
#define CACHE_ENTRIES (1u << 15)
struct entry {
    _Alignas(64) uint8_t piece[ENTRY_BYTES];
    uint8_t bytes, count; /* bytes 0: empty */
    uint32_t ids[ENTRY_IDS];
};
_Static_assert(sizeof(struct entry) == 64, "one line");

struct bpe_scratch {
    struct entry *cache; /* owned */
    struct merge_scratch *merge;
    struct token_ids ids;
};

struct bpe_scratch *bpe_scratch_create(void)
{
    struct bpe_scratch *s = mem_alloc(sizeof *s);
    size_t bytes = CACHE_ENTRIES * sizeof *s->cache;
    s->merge = merge_scratch_create();
    s->cache = aligned_alloc(64, bytes);
    if (s->cache != NULL) { /* without it all is slower */
        memset(s->cache, 0, bytes);
    }
    return s;
}

void bpe_scratch_destroy(struct bpe_scratch *s)
{
    if (s != NULL) {
        free(s->cache);
        merge_scratch_destroy(s->merge);
        token_ids_fini(&s->ids);
        free(s);
    }
}

static void add_fallback(const struct bpe *b, const uint8_t *text, size_t bytes,
                         struct token_ids *out)
{
    for (size_t i = 0; i < bytes; i++) {
        token_ids_add(out, b->fallback_ids[text[i]]);
    }
}

static bool has_fallback(const struct bpe *b, const uint8_t *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (b->fallback_ids[text[i]] == NO_ID) {
            return false;
        }
    }
    return true;
}

/* The characters of a piece as tokens, where not every one has its own. An unknown one is held back
 * until the next known one, as the reference does it; between them a fallback may come first. */
static void add_chars(const struct bpe *b, const uint8_t *piece, size_t bytes,
                      struct token_ids *out)
{
    bool unknown = false;
    size_t length;
    for (size_t i = 0; i < bytes; i += length) {
        uint8_t spelled[4];
        const uint8_t *text = piece + i;
        size_t text_bytes;
        uint32_t id = NO_ID;
        if (b->byte_level) {
            length = 1;
            id = b->byte_ids[piece[i]];
            text_bytes = unicode_put(alphabet_char(piece[i]), spelled);
            text = spelled;
        } else {
            find_char(b, unicode_at(text, &length), &id);
            text_bytes = length;
        }
        if (id != NO_ID) {
            if (unknown) {
                token_ids_add(out, b->unknown_id);
            }
            unknown = false;
            token_ids_add(out, id);
        } else if (b->byte_fallback && has_fallback(b, text, text_bytes)) {
            add_fallback(b, text, text_bytes, out);
        } else {
            if (unknown && !b->fuse_unknown) {
                token_ids_add(out, b->unknown_id);
            }
            unknown = true;
        }
    }
    if (unknown) {
        token_ids_add(out, b->unknown_id);
    }
}

static void add_bytes(const struct bpe *b, const uint8_t *piece, size_t bytes,
                      struct token_ids *out)
{
    mem_grow((void **)&out->ids, &out->capacity, out->count + bytes, sizeof *out->ids);
    for (size_t i = 0; i < bytes; i++) {
        out->ids[out->count + i] = b->byte_ids[piece[i]];
    }
    out->count += bytes;
}

static void encode(const struct bpe *b, struct bpe_scratch *s, const uint8_t *piece, size_t bytes,
                   struct token_ids *out)
{
    uint32_t whole;
    const struct vocab *words = b->byte_level ? &b->words : &b->vocab;
    if (b->ignore_merges && vocab_find(words, piece, bytes, &whole)) {
        token_ids_add(out, whole);
        return;
    }
    size_t before = out->count;
    if (b->whole_bytes) {
        add_bytes(b, piece, bytes, out);
    } else {
        add_chars(b, piece, bytes, out);
    }
    out->count = before + merges_run(&b->merges, s->merge, out->ids + before, out->count - before);
}

void bpe_encode(const struct bpe *b, struct bpe_scratch *s, const uint8_t *piece, size_t bytes,
                struct token_ids *out)
{
    if (s->cache == NULL || bytes > ENTRY_BYTES) {
        encode(b, s, piece, bytes, out);
        return;
    }
    struct entry *e = &s->cache[hash_xxh3(piece, bytes, 0) % CACHE_ENTRIES];
    if (e->bytes != bytes || memcmp(e->piece, piece, bytes) != 0) {
        s->ids.count = 0;
        encode(b, s, piece, bytes, &s->ids);
        if (s->ids.count > ENTRY_IDS) {
            for (size_t i = 0; i < s->ids.count; i++) {
                token_ids_add(out, s->ids.ids[i]);
            }
            return;
        }
        e->bytes = (uint8_t)bytes;
        e->count = (uint8_t)s->ids.count;
        memcpy(e->piece, piece, bytes);
        memcpy(e->ids, s->ids.ids, s->ids.count * sizeof *e->ids);
    }
    mem_grow((void **)&out->ids, &out->capacity, out->count + ENTRY_IDS, sizeof *out->ids);
    memcpy(out->ids + out->count, e->ids, sizeof e->ids);
    out->count += e->count;
}
