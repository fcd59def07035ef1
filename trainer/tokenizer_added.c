/* The tokens lie sorted. At a place of the text those with its first byte are a range; each further
 * byte narrows it by two binary searches, and a token that ends there is the longest so far. */
#include "trainer/tokenizer_added.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "trainer/tokenizer_pattern.h"
#include "trainer/tokenizer_unicode.h"

#define TOKENS_MAX      (1u << 20)
#define TOKEN_BYTES_MAX 4096

struct token {
    char *text;   /* owned; as the file has it */
    char *search; /* owned; as it is looked for: in normal form where that is asked for */
    size_t text_bytes, search_bytes;
    uint32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
    bool skipped; /* in decoding without special tokens */
};

struct set {
    const struct token **sorted; /* owned array; by search text */
    size_t count;
    uint32_t first[257]; /* by first byte, where its range starts */
};

struct added {
    struct token *tokens; /* owned; by file order */
    size_t count;
    struct vocab names; /* tokens by text and id */
    uint32_t *by_id;    /* owned; by id below names.ids, the index */
    struct set sets[2];
    struct regex *word; /* a character of a word */
};

/* ---- loading */

static int load_token(struct token *t, const struct json_at *at, struct err *err)
{
    static const char *const names[] = {"single_word", "lstrip", "rstrip", "normalized", "special"};
    bool *flags[] = {&t->single_word, &t->lstrip, &t->rstrip, &t->normalized, &t->special};
    const char *text;
    struct json_at content = json_at_key(at, "content");
    struct json_at id = json_at_key(at, "id");
    TRY(json_at_object(at, err));
    TRY(json_at_only(at, "id content single_word lstrip rstrip normalized special", err));
    TRY(json_at_u32(&id, VOCAB_IDS_MAX - 1, &t->id, err));
    TRY(json_at_text(&content, &text, &t->text_bytes, err));
    if (t->text_bytes == 0 || t->text_bytes > TOKEN_BYTES_MAX ||
        memchr(text, 0, t->text_bytes) != NULL) {
        return json_at_refuse(&content, err, "a token has 1 to %d bytes and no NUL",
                              TOKEN_BYTES_MAX);
    }
    t->text = mem_strdup(text);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct json_at flag = json_at_key(at, names[i]);
        TRY(json_at_bool(&flag, flags[i], err));
    }
    return 0;
}

static int find_search_text(struct token *t, const struct normaliser *normaliser, struct err *err)
{
    struct buf form = {0};
    int rc = 0;
    if (t->normalized) {
        struct regex_scratch *scratch = regex_scratch_create();
        rc = normaliser_run(normaliser, scratch, (const uint8_t *)t->text, t->text_bytes, &form,
                            err);
        regex_scratch_destroy(scratch);
    } else {
        buf_append(&form, t->text, t->text_bytes);
    }
    t->search = mem_strdup(buf_cstr(&form));
    t->search_bytes = form.len;
    buf_fini(&form);
    return rc;
}

/* expected: the id of a token that is new. */
static int check_id(const struct token *t, const struct json_at *at, const struct vocab *model,
                    uint32_t expected, struct err *err)
{
    struct json_at id = json_at_key(at, "id");
    uint32_t known;
    size_t bytes;
    if (vocab_find(model, t->text, t->text_bytes, &known)) {
        return known == t->id ? 0
                              : json_at_refuse(&id, err, "model.vocab gives \"%.60s\" the id %u",
                                               t->text, known);
    }
    const uint8_t *other = vocab_text(model, t->id, &bytes);
    if (other != NULL) {
        return json_at_refuse(&id, err, "model.vocab gives this id to \"%.*s\"",
                              bytes < 60 ? (int)bytes : 60, (const char *)other);
    }
    return t->id == expected
               ? 0
               : json_at_refuse(&id, err,
                                "the next free id is %u (added tokens continue the vocabulary "
                                "without a gap, in the order of their ids)",
                                expected);
}

static int compare(const void *a, const void *b)
{
    const struct token *left = *(const struct token *const *)a;
    const struct token *right = *(const struct token *const *)b;
    size_t shorter =
        left->search_bytes < right->search_bytes ? left->search_bytes : right->search_bytes;
    int order = memcmp(left->search, right->search, shorter);
    return order != 0 ? order
                      : (left->search_bytes > right->search_bytes) -
                            (left->search_bytes < right->search_bytes);
}

static int fill_set(struct added *a, enum added_form form, const struct json_at *at,
                    struct err *err)
{
    struct set *s = &a->sets[form];
    s->sorted = mem_alloc_array(a->count, sizeof(struct token *));
    for (size_t i = 0; i < a->count; i++) {
        if (a->tokens[i].normalized == (form == ADDED_NORMALISED)) {
            s->sorted[s->count++] = &a->tokens[i];
        }
    }
    qsort(s->sorted, s->count, sizeof s->sorted[0], compare);
    for (size_t i = 0; i < s->count; i++) {
        if (s->sorted[i]->search_bytes == 0 ||
            (i > 0 && compare(&s->sorted[i - 1], &s->sorted[i]) == 0)) {
            return json_at_refuse(at, err,
                                  "the normal form of \"%.60s\" is empty or that of another",
                                  s->sorted[i]->text);
        }
        s->first[(uint8_t)s->sorted[i]->search[0] + 1] = (uint32_t)i + 1;
    }
    for (size_t i = 1; i < 257; i++) {
        if (s->first[i] == 0) {
            s->first[i] = s->first[i - 1];
        }
    }
    return 0;
}

/* The reference knows special tokens by their text. One that decodes to its normal form is skipped
 * only where that is the text of a special token, too. */
static void find_skipped(struct added *a)
{
    for (size_t i = 0; i < a->count; i++) {
        struct token *t = &a->tokens[i];
        uint32_t id;
        bool known = vocab_find(&a->names, t->search, t->search_bytes, &id);
        t->skipped = known && a->tokens[a->by_id[id]].special;
    }
}

static int load(struct added *a, const struct json_at *at, const struct vocab *model,
                const struct normaliser *normaliser, struct err *err)
{
    size_t count = 0;
    uint32_t next = model->count;
    TRY(json_at_none(at) ? 0 : json_at_array(at, &count, err));
    if (count > TOKENS_MAX) {
        return json_at_refuse(at, err, "more than %u added tokens", TOKENS_MAX);
    }
    a->tokens = mem_alloc_array(count, sizeof *a->tokens);
    for (size_t i = 0; i < count; i++) {
        struct json_at item = json_at_item(at, i);
        struct token *t = &a->tokens[a->count++];
        TRY(load_token(t, &item, err));
        TRY(find_search_text(t, normaliser, err));
        TRY(check_id(t, &item, model, next, err));
        if (!vocab_add(&a->names, t->id, t->text, t->text_bytes)) {
            return json_at_refuse(&item, err, "\"%.60s\" is there twice", t->text);
        }
        next = t->id >= next ? t->id + 1 : next;
    }
    a->by_id = mem_alloc_array(a->names.ids, sizeof *a->by_id);
    for (size_t i = 0; i < count; i++) {
        a->by_id[a->tokens[i].id] = (uint32_t)i;
    }
    find_skipped(a);
    TRY(fill_set(a, ADDED_PLAIN, at, err));
    return fill_set(a, ADDED_NORMALISED, at, err);
}

int added_load(struct added **a, const struct json_at *at, const struct vocab *model,
               const struct normaliser *normaliser, struct err *err)
{
    *a = mem_alloc(sizeof **a);
    (*a)->word = regex_create_own("\\A[" PATTERN_WORD "]");
    int rc = load(*a, at, model, normaliser, err);
    if (rc != 0) {
        added_destroy(*a);
        *a = NULL;
    }
    return rc;
}

void added_destroy(struct added *a)
{
    if (a == NULL) {
        return;
    }
    for (size_t i = 0; i < a->count; i++) {
        free(a->tokens[i].text);
        free(a->tokens[i].search);
    }
    free(a->tokens);
    free(a->by_id);
    vocab_fini(&a->names);
    free(a->sets[ADDED_PLAIN].sorted);
    free(a->sets[ADDED_NORMALISED].sorted);
    regex_destroy(a->word);
    free(a);
}

uint32_t added_ids(const struct added *a)
{
    return a->names.ids;
}

bool added_find(const struct added *a, const char *text, uint32_t *id)
{
    return vocab_find(&a->names, text, strlen(text), id);
}

const uint8_t *added_spelling(const struct added *a, uint32_t id, size_t *bytes)
{
    return vocab_text(&a->names, id, bytes);
}

const char *added_text(const struct added *a, uint32_t id, size_t *bytes, bool *skipped)
{
    if (vocab_text(&a->names, id, bytes) == NULL) {
        return NULL;
    }
    const struct token *t = &a->tokens[a->by_id[id]];
    *bytes = t->search_bytes;
    *skipped = t->skipped;
    return t->search;
}

/* ---- searching */

/* The first token of low..high that has at least this byte at `at`, or a greater one. */
static size_t narrow(const struct set *s, size_t low, size_t high, size_t at, unsigned byte)
{
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct token *t = s->sorted[middle];
        bool less = t->search_bytes <= at || (uint8_t)t->search[at] < byte;
        low = less ? middle + 1 : low;
        high = less ? high : middle;
    }
    return low;
}

/* The longest token at the start of the text, or NULL. */
static const struct token *longest_at(const struct set *s, const uint8_t *text, size_t bytes)
{
    const struct token *found = NULL;
    size_t low = s->first[text[0]];
    size_t high = s->first[text[0] + 1];
    for (size_t at = 1; low < high; at++) {
        if (s->sorted[low]->search_bytes == at) { /* the shortest of a range comes first */
            found = s->sorted[low];
        }
        if (at == bytes) {
            break;
        }
        low = narrow(s, low, high, at, text[at]);
        high = narrow(s, low, high, at, text[at] + 1u);
    }
    return found;
}

static bool is_word(const struct added *a, struct regex_scratch *scratch, const uint8_t *c)
{
    uint8_t shown[4];
    size_t bytes;
    uint32_t code = unicode_at(c, &bytes);
    uint32_t stand_in = unicode_stand_in(code);
    struct regex_walk walk = {.text = shown};
    bool found = false;
    walk.bytes = unicode_put(stand_in != 0 ? stand_in : code, shown);
    int rc = regex_next(a->word, scratch, &walk, &found, NULL);
    assert(rc == 0); /* one character against one class */
    return found;
}

static bool is_alone(const struct added *a, struct regex_scratch *scratch,
                     const struct added_walk *w, size_t start, size_t end)
{
    bool before = start > 0 && is_word(a, scratch, unicode_before(w->text + start));
    bool after = end < w->bytes && is_word(a, scratch, w->text + end);
    return !before && !after;
}

static size_t space_before(const struct added_walk *w, size_t start)
{
    while (start > w->done) {
        const uint8_t *c = unicode_before(w->text + start);
        size_t bytes;
        if (!unicode_is_space(unicode_at(c, &bytes))) {
            break;
        }
        start = (size_t)(c - w->text);
    }
    return start;
}

static size_t space_after(const struct added_walk *w, size_t end)
{
    size_t bytes;
    while (end < w->bytes && unicode_is_space(unicode_at(w->text + end, &bytes))) {
        end += bytes;
    }
    return end;
}

static void take(const struct token *t, struct added_walk *w, size_t start, size_t end)
{
    w->before = w->done;
    w->start = t->lstrip ? space_before(w, start) : start;
    w->end = t->rstrip ? space_after(w, end) : end;
    w->start = w->start > w->done ? w->start : w->done; /* another token may have taken the space */
    w->done = w->end;
    w->searched = end;
    w->id = t->id;
}

bool added_next(const struct added *a, enum added_form form, struct regex_scratch *scratch,
                struct added_walk *w)
{
    const struct set *s = &a->sets[form];
    w->before = w->done;
    if (s->count == 0) {
        return false;
    }
    for (size_t at = w->searched; at < w->bytes; at++) {
        if (s->first[w->text[at]] == s->first[w->text[at] + 1]) {
            continue;
        }
        const struct token *t = longest_at(s, w->text + at, w->bytes - at);
        if (t == NULL) {
            continue;
        }
        size_t end = at + t->search_bytes;
        if (!t->single_word || is_alone(a, scratch, w, at, end)) {
            take(t, w, at, end);
            return true;
        }
        at = end - 1; /* a shorter one in its place does not count */
    }
    w->searched = w->bytes;
    return false;
}
