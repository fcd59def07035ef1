#include "trainer/tokenizer_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <assert.h>
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/buf.h"
#include "lib/mem.h"
#include "trainer/tokenizer_pattern.h"
#include "trainer/tokenizer_unicode.h"

#define JIT_STACK_BYTES     (32u << 10)
#define JIT_STACK_BYTES_MAX (64u << 20)
/* Steps back in one match: those of a sane pattern grow with the text, those of others explode. */
#define STEPS_MAX           10000000u
#define STEPS_PER_BYTE      8
#define UNICODE_VERSION_MIN 14

struct regex {
    pcre2_code *code; /* owned */
    bool jit;
};
struct regex_scratch {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

/* The stand-ins are made for PCRE2 with at least this version of Unicode. */
int regex_check_library(struct err *err)
{
    char version[64];
    pcre2_config(PCRE2_CONFIG_UNICODE_VERSION, version);
    return atoi(version) >= UNICODE_VERSION_MIN
               ? 0
               : err_set(err, ERR_DATA, "this machine's PCRE2 knows Unicode %s, %d is needed",
                         version, UNICODE_VERSION_MIN);
}

static int compile(struct regex **r, const struct buf *pattern, struct err *err)
{
    int code;
    PCRE2_SIZE place;
    assert(pattern->data != NULL); /* PCRE2 takes no NULL, not even of an empty pattern */
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_code *compiled =
        pcre2_compile(pattern->data, pattern->len, PCRE2_UTF, &code, &place, context);
    pcre2_compile_context_free(context);
    if (compiled == NULL) {
        char why[128];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        return err_set(err, ERR_DATA, "the regular expression is refused: %s", why);
    }
    *r = mem_alloc(sizeof **r);
    (*r)->code = compiled;
    (*r)->jit = pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE) == 0;
    return 0;
}

int regex_create(struct regex **r, const char *source, size_t bytes, struct err *err)
{
    struct buf pattern = {0};
    buf_cstr(&pattern); /* not NULL even when it stays empty */
    int rc = pattern_translate(source, bytes, &pattern, err);
    if (rc == 0) {
        rc = compile(r, &pattern, err);
    }
    buf_fini(&pattern);
    return rc;
}

struct regex *regex_create_own(const char *source)
{
    struct regex *r = NULL;
    struct buf pattern = {0};
    buf_append_str(&pattern, source);
    buf_cstr(&pattern);
    int rc = compile(&r, &pattern, NULL);
    buf_fini(&pattern);
    assert(rc == 0);
    return r;
}

/* Matches just this text. Fails when that is too long for PCRE2. */
static int create_literal(struct regex **r, const char *text, size_t bytes, struct err *err)
{
    struct buf pattern = {0};
    struct buf masked = {0};
    const uint8_t *p = (const uint8_t *)text;
    if (unicode_mask(p, bytes, &masked)) {
        p = masked.data;
    }
    size_t length;
    for (size_t i = 0; i < bytes; i += length) {
        buf_printf(&pattern, "\\x{%x}", unicode_at(p + i, &length));
    }
    buf_cstr(&pattern);
    int rc = compile(r, &pattern, err);
    buf_fini(&masked);
    buf_fini(&pattern);
    return rc;
}

int regex_load(struct regex **r, const struct json_at *at, struct err *err)
{
    struct err why = {0};
    const char *text;
    size_t bytes;
    TRY(json_at_object(at, err));
    TRY(json_at_only(at, "Regex String", err));
    struct json_at source = json_at_key(at, "Regex");
    struct json_at literal = json_at_key(at, "String");
    if (!json_at_none(&literal)) {
        TRY(json_at_text(&literal, &text, &bytes, err));
        return create_literal(r, text, bytes, &why) == 0
                   ? 0
                   : json_at_refuse(&literal, err, "%s", why.text);
    }
    TRY(json_at_text(&source, &text, &bytes, err));
    return regex_create(r, text, bytes, &why) == 0 ? 0
                                                   : json_at_refuse(&source, err, "%s", why.text);
}

void regex_destroy(struct regex *r)
{
    if (r != NULL) {
        pcre2_code_free(r->code);
        free(r);
    }
}

struct regex_scratch *regex_scratch_create(void)
{
    struct regex_scratch *s = mem_alloc(sizeof *s);
    s->data = pcre2_match_data_create(1, NULL);
    s->context = pcre2_match_context_create(NULL);
    s->stack = pcre2_jit_stack_create(JIT_STACK_BYTES, JIT_STACK_BYTES_MAX, NULL);
    pcre2_jit_stack_assign(s->context, NULL, s->stack);
    return s;
}

void regex_scratch_destroy(struct regex_scratch *s)
{
    if (s != NULL) {
        pcre2_jit_stack_free(s->stack);
        pcre2_match_context_free(s->context);
        pcre2_match_data_free(s->data);
        free(s);
    }
}

static int search(const struct regex *r, struct regex_scratch *s, const struct regex_walk *w)
{
    uint64_t steps = STEPS_MAX + (uint64_t)STEPS_PER_BYTE * w->bytes;
    pcre2_set_match_limit(s->context, steps < UINT32_MAX ? (uint32_t)steps : UINT32_MAX);
    return r->jit ? pcre2_jit_match(r->code, w->text, w->bytes, w->at, PCRE2_NO_UTF_CHECK, s->data,
                                    s->context)
                  : pcre2_match(r->code, w->text, w->bytes, w->at, PCRE2_NO_UTF_CHECK, s->data,
                                s->context);
}

int regex_next(const struct regex *r, struct regex_scratch *s, struct regex_walk *w, bool *found,
               struct err *err)
{
    *found = false;
    while (w->at <= w->bytes) {
        int rc = search(r, s, w);
        if (rc == PCRE2_ERROR_NOMATCH) {
            break;
        } else if (rc < 0) {
            char why[128];
            pcre2_get_error_message(rc, (PCRE2_UCHAR *)why, sizeof why);
            return err_set(err, ERR_DATA, "a regular expression of the tokenizer fails: %s", why);
        }
        const PCRE2_SIZE *match = pcre2_get_ovector_pointer(s->data);
        bool again = match[0] == match[1] && w->matched && match[1] == w->end;
        w->at = match[1];
        if (!again) {
            w->start = match[0];
            w->end = match[1];
            w->matched = true;
            *found = true;
            break;
        }
        size_t step = 1;
        if (w->at < w->bytes) {
            unicode_at(w->text + w->at, &step);
        }
        w->at += step;
    }
    return 0;
}
