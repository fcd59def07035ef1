#include "trainer/tokenizer_norm.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "lib/mem.h"
#include "trainer/tokenizer_unicode.h"

#define STEPS_MAX 16

struct step {
    enum { FORM, PREPEND, REPLACE } kind;
    utf8proc_option_t form; /* FORM */
    char *text;             /* owned; PREPEND: what to; REPLACE: by what */
    size_t bytes;
    struct regex *regex; /* owned; REPLACE: what */
};
struct normaliser {
    struct step steps[STEPS_MAX];
    size_t count;
};

#define NFC  (UTF8PROC_STABLE | UTF8PROC_COMPOSE)
#define NFD  (UTF8PROC_STABLE | UTF8PROC_DECOMPOSE)
#define NFKC (NFC | UTF8PROC_COMPAT)
#define NFKD (NFD | UTF8PROC_COMPAT)

/* ---- loading */

static int load_text(struct step *step, const struct json_at *at, const char *key, struct err *err)
{
    struct json_at value = json_at_key(at, key);
    const char *text;
    TRY(json_at_text(&value, &text, &step->bytes, err));
    step->text = mem_alloc(step->bytes + 1);
    memcpy(step->text, text, step->bytes);
    return 0;
}

static int load_step(struct step *step, const struct json_at *at, const char *type, struct err *err)
{
    static const struct {
        const char *name;
        unsigned form;
    } forms[] = {{"NFC", NFC}, {"NFD", NFD}, {"NFKC", NFKC}, {"NFKD", NFKD}};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (strcmp(type, forms[i].name) == 0) {
            step->kind = FORM;
            step->form = (utf8proc_option_t)forms[i].form;
            return json_at_only(at, "type", err);
        }
    }
    if (strcmp(type, "Prepend") == 0) {
        step->kind = PREPEND;
        TRY(json_at_only(at, "type prepend", err));
        return load_text(step, at, "prepend", err);
    } else if (strcmp(type, "Replace") == 0) {
        struct json_at pattern = json_at_key(at, "pattern");
        step->kind = REPLACE;
        TRY(json_at_only(at, "type pattern content", err));
        TRY(load_text(step, at, "content", err));
        return regex_load(&step->regex, &pattern, err);
    }
    struct json_at key = json_at_key(at, "type");
    return json_at_refuse(&key, err,
                          "not supported (normalisers that are: NFC, NFD, NFKC, NFKD, Prepend, "
                          "Replace, Sequence)");
}

static int load_any(struct normaliser *n, const struct json_at *at, struct err *err)
{
    const char *type;
    TRY(json_at_type(at, &type, err));
    if (strcmp(type, "Sequence") == 0) {
        struct json_at list = json_at_key(at, "normalizers");
        size_t count;
        TRY(json_at_only(at, "type normalizers", err));
        TRY(json_at_array(&list, &count, err));
        for (size_t i = 0; i < count; i++) {
            struct json_at item = json_at_item(&list, i);
            TRY(load_any(n, &item, err));
        }
        return 0;
    }
    if (n->count == STEPS_MAX) {
        return json_at_refuse(at, err, "more than %d normalisers", STEPS_MAX);
    }
    return load_step(&n->steps[n->count++], at, type, err);
}

int normaliser_load(struct normaliser **n, const struct json_at *at, struct err *err)
{
    *n = mem_alloc(sizeof **n);
    int rc = json_at_none(at) ? 0 : load_any(*n, at, err);
    if (rc != 0) {
        normaliser_destroy(*n);
        *n = NULL;
    }
    return rc;
}

void normaliser_destroy(struct normaliser *n)
{
    if (n != NULL) {
        for (size_t i = 0; i < n->count; i++) {
            free(n->steps[i].text);
            regex_destroy(n->steps[i].regex);
        }
        free(n);
    }
}

bool normaliser_is_none(const struct normaliser *n)
{
    return n->count == 0;
}

/* ---- running */

/* Code points that are in NFC whatever stands beside them, or at least beside each other: most text
 * is made of these alone. */
static bool is_plain_nfc(uint32_t c)
{
    return c < 0x300 || (c >= 0x400 && c < 0x483) || (c >= 0x2010 && c < 0x2029) ||
           (c >= 0x2030 && c < 0x205f) || (c >= 0x3001 && c < 0x302a) ||
           (c >= 0x3041 && c < 0x3097) || (c >= 0x30a1 && c < 0x30ff) ||
           (c >= 0x4e00 && c < 0x9fa6) || (c >= 0xac00 && c < 0xd7a4) ||
           (c >= 0xff01 && c < 0xff5f) || (c >= 0x1f300 && c < 0x1f5ff);
}

/* Of a text without inert code points. */
static int append_form(utf8proc_option_t form, const uint8_t *text, size_t bytes, struct buf *out,
                       struct err *err)
{
    uint8_t *mapped = NULL;
    utf8proc_ssize_t length = utf8proc_map(text, (utf8proc_ssize_t)bytes, &mapped, form);
    if (length < 0) {
        return err_set(err, ERR_DATA, "cannot normalise a text of %zu bytes: %s", bytes,
                       utf8proc_errmsg(length));
    }
    buf_append(out, mapped, (size_t)length);
    free(mapped);
    return 0;
}

static int run_form(utf8proc_option_t form, const uint8_t *text, size_t bytes, struct buf *out,
                    struct err *err)
{
    size_t done = 0;
    size_t length;
    bool plain = true;
    for (size_t i = 0; i < bytes; i += length) {
        uint32_t c = unicode_at(text + i, &length);
        plain = plain && (c < 0x80 || (form == NFC && is_plain_nfc(c)));
        if (c >= 0x7fd && unicode_is_inert(c)) {
            TRY(append_form(form, text + done, i - done, out, err));
            buf_append(out, text + i, length);
            done = i + length;
        }
    }
    if (plain) {
        buf_append(out, text, bytes);
        return 0;
    }
    return append_form(form, text + done, bytes - done, out, err);
}

static int run_replace(const struct step *step, struct regex_scratch *scratch, const uint8_t *text,
                       size_t bytes, struct buf *out, struct err *err)
{
    struct buf masked = {0};
    struct regex_walk walk = {.text = unicode_mask(text, bytes, &masked) ? masked.data : text,
                              .bytes = bytes};
    size_t done = 0;
    int rc;
    for (;;) {
        bool found;
        rc = regex_next(step->regex, scratch, &walk, &found, err);
        if (rc != 0 || !found) {
            break;
        }
        buf_append(out, text + done, walk.start - done);
        buf_append(out, step->text, step->bytes);
        done = walk.end;
    }
    buf_append(out, text + done, bytes - done);
    buf_fini(&masked);
    return rc;
}

static int run_step(const struct step *step, struct regex_scratch *scratch, const uint8_t *text,
                    size_t bytes, struct buf *out, struct err *err)
{
    switch (step->kind) {
    case FORM:
        return run_form(step->form, text, bytes, out, err);
    case PREPEND:
        buf_append(out, step->text, bytes > 0 ? step->bytes : 0);
        buf_append(out, text, bytes);
        return 0;
    default:
        return run_replace(step, scratch, text, bytes, out, err);
    }
}

int normaliser_run(const struct normaliser *n, struct regex_scratch *scratch, const uint8_t *text,
                   size_t bytes, struct buf *out, struct err *err)
{
    struct buf from = {0};
    struct buf to = {0};
    int rc = 0;
    buf_append(&from, text, bytes);
    for (size_t i = 0; i < n->count && rc == 0; i++) {
        buf_reset(&to);
        rc = run_step(&n->steps[i], scratch, from.data, from.len, &to, err);
        struct buf swap = from;
        from = to;
        to = swap;
    }
    buf_append(out, from.data, from.len);
    buf_fini(&from);
    buf_fini(&to);
    return rc;
}
