/* Stages, each of which cuts the pieces of the one before it on their own: a look-ahead at the end
 * of a piece sees the end of the text. They run depth first, so that nothing is stored.
 *
 * A stage sees a piece as spans, matches and what lies between them, which its behaviour drops,
 * passes on, or joins with their neighbours. */
#include "trainer/tokenizer_split.h"

#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/mem.h"
#include "trainer/tokenizer_regex.h"
#include "trainer/tokenizer_unicode.h"

#define STAGES_MAX 16

#define GPT2_PATTERN                                                                               \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define NUMBER_PATTERN "[\\p{N}\\x{2fffe}]" /* with UNICODE_DIGIT_STAND_IN */

enum behaviour { ISOLATED, REMOVED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS };
static const char *const behaviour_names[] = {"Isolated", "Removed", "MergedWithPrevious",
                                              "MergedWithNext", "Contiguous"};

struct stage {
    struct regex *regex; /* owned; NULL: puts a space before a piece that has none there */
    enum behaviour behaviour;
    bool invert; /* matches and the rest change places */
};
struct splitter {
    struct stage stages[STAGES_MAX];
    size_t count;
    bool byte_level;
};
struct splitter_scratch {
    struct regex_scratch *regex;
    struct buf masked;                  /* the text with stand-ins */
    struct buf spaced, spaced_original; /* a piece with a space before it */
};

/* ---- loading */

static int add_stage(struct splitter *s, const struct json_at *at, struct stage stage,
                     struct err *err)
{
    if (s->count == STAGES_MAX) {
        regex_destroy(stage.regex);
        return json_at_refuse(at, err, "more than %d pre-tokenisers", STAGES_MAX);
    }
    s->stages[s->count++] = stage;
    return 0;
}

static int load_behaviour(const struct json_at *at, enum behaviour *behaviour, struct err *err)
{
    const char *name;
    size_t bytes;
    TRY(json_at_text(at, &name, &bytes, err));
    for (size_t i = 0; i < sizeof behaviour_names / sizeof behaviour_names[0]; i++) {
        if (strcmp(name, behaviour_names[i]) == 0) {
            *behaviour = (enum behaviour)i;
            return 0;
        }
    }
    return json_at_refuse(
        at, err, "Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous is needed");
}

static int load_split(struct splitter *s, const struct json_at *at, struct err *err)
{
    struct stage stage = {0};
    struct json_at behaviour = json_at_key(at, "behavior");
    struct json_at invert = json_at_key(at, "invert");
    struct json_at pattern = json_at_key(at, "pattern");
    TRY(json_at_only(at, "type pattern behavior invert", err));
    TRY(load_behaviour(&behaviour, &stage.behaviour, err));
    TRY(json_at_bool_or(&invert, false, &stage.invert, err));
    TRY(regex_load(&stage.regex, &pattern, err));
    return add_stage(s, at, stage, err);
}

static int load_digits(struct splitter *s, const struct json_at *at, struct err *err)
{
    struct json_at individual = json_at_key(at, "individual_digits");
    bool each;
    TRY(json_at_only(at, "type individual_digits", err));
    TRY(json_at_bool_or(&individual, false, &each, err));
    struct stage stage = {.regex = regex_create_own(each ? NUMBER_PATTERN : NUMBER_PATTERN "+")};
    return add_stage(s, at, stage, err);
}

static int load_byte_level(struct splitter *s, const struct json_at *at, struct err *err)
{
    struct json_at prefix_space = json_at_key(at, "add_prefix_space");
    struct json_at trim_offsets = json_at_key(at, "trim_offsets");
    struct json_at use_regex = json_at_key(at, "use_regex");
    bool prefix;
    bool trim; /* of no effect on ids */
    bool regex;
    TRY(json_at_only(at, "type add_prefix_space trim_offsets use_regex", err));
    TRY(json_at_bool(&prefix_space, &prefix, err));
    TRY(json_at_bool_or(&trim_offsets, true, &trim, err));
    TRY(json_at_bool_or(&use_regex, true, &regex, err));
    s->byte_level = true;
    if (prefix) {
        TRY(add_stage(s, at, (struct stage){.regex = NULL}, err));
    }
    if (regex) {
        struct stage stage = {0};
        TRY(regex_create(&stage.regex, GPT2_PATTERN, strlen(GPT2_PATTERN), err));
        TRY(add_stage(s, at, stage, err));
    }
    return 0;
}

static int load_any(struct splitter *s, const struct json_at *at, struct err *err)
{
    const char *type;
    TRY(json_at_type(at, &type, err));
    if (s->byte_level) {
        return json_at_refuse(at, err, "a pre-tokeniser after ByteLevel is not supported");
    }
    if (strcmp(type, "Sequence") == 0) {
        struct json_at list = json_at_key(at, "pretokenizers");
        size_t count;
        TRY(json_at_only(at, "type pretokenizers", err));
        TRY(json_at_array(&list, &count, err));
        for (size_t i = 0; i < count; i++) {
            struct json_at item = json_at_item(&list, i);
            TRY(load_any(s, &item, err));
        }
        return 0;
    } else if (strcmp(type, "Split") == 0) {
        return load_split(s, at, err);
    } else if (strcmp(type, "Digits") == 0) {
        return load_digits(s, at, err);
    } else if (strcmp(type, "ByteLevel") == 0) {
        return load_byte_level(s, at, err);
    }
    struct json_at key = json_at_key(at, "type");
    return json_at_refuse(
        &key, err, "not supported (pre-tokenisers that are: Split, Digits, ByteLevel, Sequence)");
}

int splitter_load(struct splitter **s, const struct json_at *at, struct err *err)
{
    *s = mem_alloc(sizeof **s);
    int rc = json_at_none(at) ? 0 : load_any(*s, at, err);
    if (rc != 0) {
        splitter_destroy(*s);
        *s = NULL;
    }
    return rc;
}

void splitter_destroy(struct splitter *s)
{
    if (s != NULL) {
        for (size_t i = 0; i < s->count; i++) {
            regex_destroy(s->stages[i].regex);
        }
        free(s);
    }
}

bool splitter_is_byte_level(const struct splitter *s)
{
    return s->byte_level;
}

/* ---- running */

struct splitter_scratch *splitter_scratch_create(void)
{
    struct splitter_scratch *scratch = mem_alloc(sizeof *scratch);
    scratch->regex = regex_scratch_create();
    return scratch;
}

void splitter_scratch_destroy(struct splitter_scratch *scratch)
{
    if (scratch != NULL) {
        regex_scratch_destroy(scratch->regex);
        buf_fini(&scratch->masked);
        buf_fini(&scratch->spaced);
        buf_fini(&scratch->spaced_original);
        free(scratch);
    }
}

/* What is the same for all pieces of one run. */
struct run {
    const struct splitter *splitter;
    struct splitter_scratch *scratch;
    splitter_fn *fn;
    void *ctx;
    struct err *err;
};
/* text is what PCRE2 sees, original what the pieces are made of: the same but for stand-ins. */
struct piece {
    const uint8_t *text, *original;
    size_t bytes;
};

static int run_stage(const struct run *r, size_t index, struct piece piece);

static int pass_on(const struct run *r, size_t index, const struct piece *piece, size_t start,
                   size_t end)
{
    if (start == end) {
        return 0;
    }
    struct piece part = {piece->text + start, piece->original + start, end - start};
    return index + 1 < r->splitter->count ? run_stage(r, index + 1, part)
                                          : r->fn(r->ctx, part.original, part.bytes, r->err);
}

/* Spans on their way through a behaviour that joins some. */
struct joint {
    size_t start, end; /* of what is held back */
    bool held, last_matched;
};

static int join(const struct run *r, size_t index, const struct piece *piece, struct joint *j,
                size_t start, size_t end, bool matched)
{
    enum behaviour behaviour = r->splitter->stages[index].behaviour;
    bool with_held = behaviour == CONTIGUOUS             ? matched == j->last_matched
                     : behaviour == MERGED_WITH_PREVIOUS ? matched && !j->last_matched
                                                         : j->last_matched && !matched;
    int rc = 0;
    if (!j->held || !with_held) {
        rc = j->held ? pass_on(r, index, piece, j->start, j->end) : 0;
        j->start = start;
        j->held = true;
    }
    j->end = end;
    j->last_matched = matched;
    return rc;
}

static int pass_span(const struct run *r, size_t index, const struct piece *piece, struct joint *j,
                     size_t start, size_t end, bool matched)
{
    const struct stage *stage = &r->splitter->stages[index];
    matched = matched != stage->invert;
    switch (stage->behaviour) {
    case ISOLATED:
        return pass_on(r, index, piece, start, end);
    case REMOVED:
        return matched ? 0 : pass_on(r, index, piece, start, end);
    default:
        return join(r, index, piece, j, start, end, matched);
    }
}

static int run_regex(const struct run *r, size_t index, struct piece piece)
{
    struct regex_walk walk = {.text = piece.text, .bytes = piece.bytes};
    struct joint joint = {0};
    size_t at = 0;
    for (;;) {
        bool found;
        TRY(regex_next(r->splitter->stages[index].regex, r->scratch->regex, &walk, &found, r->err));
        size_t start = found ? walk.start : piece.bytes;
        if (start > at) {
            TRY(pass_span(r, index, &piece, &joint, at, start, false));
        }
        if (!found) {
            return joint.held ? pass_on(r, index, &piece, joint.start, joint.end) : 0;
        }
        TRY(pass_span(r, index, &piece, &joint, walk.start, walk.end, true));
        at = walk.end;
    }
}

static void add_space(struct buf *out, const uint8_t *text, size_t bytes)
{
    buf_reset(out);
    buf_append_str(out, " ");
    buf_append(out, text, bytes);
}

static int run_stage(const struct run *r, size_t index, struct piece piece)
{
    if (r->splitter->stages[index].regex != NULL) {
        return run_regex(r, index, piece);
    }
    struct splitter_scratch *scratch = r->scratch;
    if (piece.text[0] == ' ') {
        return pass_on(r, index, &piece, 0, piece.bytes);
    }
    bool masked = piece.text != piece.original;
    add_space(&scratch->spaced, piece.text, piece.bytes);
    struct piece spaced = {scratch->spaced.data, scratch->spaced.data, piece.bytes + 1};
    if (masked) {
        add_space(&scratch->spaced_original, piece.original, piece.bytes);
        spaced.original = scratch->spaced_original.data;
    }
    return pass_on(r, index, &spaced, 0, spaced.bytes);
}

int splitter_run(const struct splitter *s, struct splitter_scratch *scratch, const uint8_t *text,
                 size_t bytes, splitter_fn *fn, void *ctx, struct err *err)
{
    struct run r = {.splitter = s, .scratch = scratch, .fn = fn, .ctx = ctx, .err = err};
    struct piece whole = {text, text, bytes};
    if (bytes == 0) {
        return 0;
    } else if (s->count == 0) {
        return fn(ctx, text, bytes, err);
    }
    if (unicode_mask(text, bytes, &scratch->masked)) {
        whole.text = scratch->masked.data;
    }
    return run_stage(&r, 0, whole);
}
