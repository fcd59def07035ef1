/* A recursive descent over Oniguruma's syntax that writes PCRE2's as it goes: alternatives of
 * sequences of pieces, a piece being an atom with a quantifier.
 *
 * Ranges of code points that the source spells out are compared with the text as PCRE2 sees it, in
 * which a stand-in may be in a code point's place (tokenizer_unicode.h): a range that holds the one
 * and not the other is refused. */
#include "trainer/tokenizer_pattern.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "trainer/tokenizer_unicode.h"

#define DEPTH_MAX  50
#define REPEAT_MAX 1000

#define SPACE                                                                                      \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"
#define NOT_SPACE                                                                                  \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{"     \
    "1fff}\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-"  \
    "\\x{10ffff}"
#define CLASS_WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
/* Outside a class Oniguruma's \w also takes the fractions and superscripts of Latin-1. */
#define WORD CLASS_WORD "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

struct parser {
    const uint8_t *start, *at, *end;
    struct buf *out;
    struct err *err;
    unsigned depth;
    bool caseless;
    int literal_before; /* of a caseless sequence, in lower case; -1: none */
};

/* What an escape stands for: one code point, or (set != NULL) the inside of a class. */
struct meaning {
    uint32_t c;
    const char *set;
    bool negated; /* all but the set */
    char name[48];
};

static int parse_alternatives(struct parser *p);

static int refuse(struct parser *p, const char *what)
{
    size_t place = 1;
    for (const uint8_t *c = p->start; c < p->at; c++) {
        place += (*c & 0xc0) != 0x80;
    }
    return err_set(p->err, ERR_DATA, "the regular expression has %s at character %zu", what, place);
}

static bool next_is(const struct parser *p, char c)
{
    return p->at < p->end && *p->at == (uint8_t)c;
}

static bool skip(struct parser *p, const char *text)
{
    size_t length = strlen(text);
    if ((size_t)(p->end - p->at) < length || memcmp(p->at, text, length) != 0) {
        return false;
    }
    p->at += length;
    return true;
}

static uint32_t take(struct parser *p)
{
    size_t bytes;
    uint32_t c = unicode_at(p->at, &bytes);
    p->at += bytes;
    return c;
}

static void put_char(struct parser *p, uint32_t c)
{
    if (c < 0x80 && isalnum((int)c)) {
        uint8_t byte = (uint8_t)c;
        buf_append(p->out, &byte, 1);
    } else {
        buf_printf(p->out, "\\x{%x}", c);
    }
}

static int check_range(struct parser *p, uint32_t first, uint32_t last)
{
    for (size_t i = 0; i < unicode_stand_in_count; i++) {
        const struct unicode_stand_in *s = &unicode_stand_ins[i];
        bool some = first <= s->last && last >= s->first;
        bool all = first <= s->first && last >= s->last;
        bool stand_in = first <= s->stand_in && s->stand_in <= last;
        if (some != all || all != stand_in) {
            char what[96];
            snprintf(what, sizeof what,
                     "a range of which U+%04X is a border case (Unicode 15 and later)", s->first);
            return refuse(p, what);
        }
    }
    return 0;
}

/* ---- escapes */

/* Whether they are equal without case, spaces, _ and -; a } ends name as its end does. */
static bool same_name(const char *given, const char *name)
{
    for (;; given++, name++) {
        while (*given == ' ' || *given == '_' || *given == '-') {
            given++;
        }
        while (*name == '_') {
            name++;
        }
        char end = *name == '}' ? 0 : *name;
        if (tolower((unsigned char)*given) != tolower((unsigned char)end)) {
            return false;
        }
        if (end == 0) {
            return true;
        }
    }
}

/* Of sets one after the other, the one whose name, which starts at `prefix`, is this. */
static const char *find_set(const char *sets, size_t prefix, const char *name)
{
    while (*sets != 0 && !same_name(name, sets + prefix)) {
        sets += strlen(sets) + 1;
    }
    return *sets != 0 ? sets : NULL;
}

/* The inside of a class for PCRE2 of what \p{name} is, NULL when it is not supported. Scripts:
 * those whose characters are the same in all versions since Unicode 14, stand-ins considered. */
static const char *property(const char *name)
{
    static const char categories[] =
        "\\p{C}\0\\p{Cc}\0\\p{Cf}\0\\p{Cn}\0\\p{Co}\0\\p{Cs}\0\\p{L}\0\\p{Ll}\0\\p{Lm}\0\\p{Lo}\0"
        "\\p{Lt}\0\\p{Lu}\0\\p{M}\0\\p{Mc}\0\\p{Me}\0\\p{Mn}\0\\p{N}\0\\p{Nd}\0\\p{Nl}\0\\p{No}\0"
        "\\p{P}\0\\p{Pc}\0\\p{Pd}\0\\p{Pe}\0\\p{Pf}\0\\p{Pi}\0\\p{Po}\0\\p{Ps}\0\\p{S}\0\\p{Sc}\0"
        "\\p{Sk}\0\\p{Sm}\0\\p{So}\0\\p{Z}\0\\p{Zl}\0\\p{Zp}\0\\p{Zs}\0";
    static const char scripts[] =
        "\\p{sc:Han}\0\\p{sc:Hiragana}\0\\p{sc:Katakana}\0\\p{sc:Hangul}\0\\p{sc:Bopomofo}\0"
        "\\p{sc:Thai}\0\\p{sc:Greek}\0\\p{sc:Hebrew}\0\\p{sc:Armenian}\0\\p{sc:Georgian}\0"
        "\\p{sc:Khmer}\0\\p{sc:Bengali}\0\\p{sc:Tamil}\0";
    static const char *const others[][2] = {{"LC", "\\p{L&}"},         {"Letter", "\\p{L}"},
                                            {"Mark", "\\p{M}"},        {"Number", "\\p{N}"},
                                            {"Punctuation", "\\p{P}"}, {"Symbol", "\\p{S}"},
                                            {"Separator", "\\p{Z}"},   {"White_Space", SPACE}};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (same_name(name, others[i][0])) {
            return others[i][1];
        }
    }
    const char *found = find_set(categories, strlen("\\p{"), name);
    return found != NULL ? found : find_set(scripts, strlen("\\p{sc:"), name);
}

/* After \p or \P. */
static int parse_property(struct parser *p, bool negated, struct meaning *m)
{
    if (!skip(p, "{")) {
        return refuse(p, "a \\p without {");
    }
    m->negated = negated != skip(p, "^");
    size_t length = 0;
    while (p->at < p->end && *p->at != '}' && length < sizeof m->name - 1) {
        m->name[length++] = (char)*p->at++;
    }
    m->name[length] = 0;
    m->set = property(m->name);
    if (m->set == NULL || !skip(p, "}")) {
        return refuse(p, "a \\p{...} that is not supported (categories such as L and Lu are, and "
                         "some scripts)");
    }
    return 0;
}

/* Hex digits: `digits` of them, or to the brace that closes. */
static int parse_hex(struct parser *p, size_t digits, struct meaning *m)
{
    bool braces = skip(p, "{");
    size_t count = 0;
    m->c = 0;
    while (p->at < p->end && isxdigit(*p->at) && count < (braces ? 6 : digits)) {
        int d = tolower(*p->at++);
        m->c = m->c * 16 + (uint32_t)(d <= '9' ? d - '0' : d - 'a' + 10);
        count++;
    }
    bool whole = braces ? count > 0 && skip(p, "}") : count == digits;
    if (!whole || m->c > UNICODE_MAX || (m->c >= 0xd800 && m->c < 0xe000)) {
        return refuse(p, "a wrong \\x or \\u");
    }
    return !braces && digits == 2 && m->c > 0x7f ? refuse(p, "a \\x of a byte that is no character")
                                                 : 0;
}

/* After the backslash. Escapes that stand for a place (\b) are the caller's. */
static int parse_escape(struct parser *p, struct meaning *m)
{
    static const char controls[] = "t\tn\nr\rf\fv\va\ae\x1b";
    *m = (struct meaning){0};
    if (p->at == p->end) {
        return refuse(p, "a \\ at the end");
    }
    uint32_t c = take(p);
    const char *control = c < 0x80 && c != 0 ? strchr(controls, (int)c) : NULL;
    if (control != NULL && (control - controls) % 2 == 0) {
        m->c = (uint32_t)control[1];
        return 0;
    }
    switch (c) {
    case 's':
    case 'S':
        m->set = SPACE;
        break;
    case 'd':
    case 'D':
        m->set = "\\p{Nd}";
        break;
    case 'w':
    case 'W':
        m->set = WORD;
        break;
    case 'h':
    case 'H':
        m->set = "0-9A-Fa-f";
        break;
    case 'p':
    case 'P':
        return parse_property(p, c == 'P', m);
    case 'x':
        return parse_hex(p, 2, m);
    case 'u':
        return next_is(p, '{') ? refuse(p, "a \\u{") : parse_hex(p, 4, m);
    default:
        if (c < 0x80 && isalnum((int)c)) {
            char what[] = "a \\? that is not supported";
            what[3] = (char)c;
            p->at--;
            return refuse(p, what);
        }
        m->c = c; /* punctuation and what is not ASCII stands for itself */
        return 0;
    }
    m->negated = isupper((int)c) != 0;
    return 0;
}

/* ---- classes */

static int put_class_set(struct parser *p, const struct meaning *m)
{
    if (p->caseless) {
        return refuse(p, "a class of characters where (?i: ignores case");
    }
    if (!m->negated) {
        buf_append_str(p->out, strcmp(m->set, WORD) == 0 ? CLASS_WORD : m->set);
    } else if (strcmp(m->set, SPACE) == 0) {
        buf_append_str(p->out, NOT_SPACE);
    } else if (strncmp(m->set, "\\p", 2) == 0 && strchr(m->set + 2, '\\') == NULL) {
        buf_printf(p->out, "\\P%s", m->set + 2);
    } else {
        return refuse(p, "a \\W or \\H inside a class");
    }
    return 0;
}

/* A character of a class that is none of its operators, or an escape. */
static int parse_class_item(struct parser *p, struct meaning *m)
{
    *m = (struct meaning){0};
    if (skip(p, "\\")) {
        return next_is(p, 'b') ? refuse(p, "a \\b inside a class") : parse_escape(p, m);
    }
    if (p->at < p->end && *p->at == '[') {
        return refuse(p, "a [ inside a class (write \\[)");
    }
    if (p->end - p->at >= 2 && memcmp(p->at, "&&", 2) == 0) {
        return refuse(p, "a && inside a class");
    }
    m->c = take(p);
    return 0;
}

static int put_class_range(struct parser *p, uint32_t first, uint32_t last)
{
    if (first > last) {
        return refuse(p, "an empty range");
    }
    if (p->caseless && last > 0x7f) {
        return refuse(p, "characters that are not ASCII where (?i: ignores case");
    }
    TRY(check_range(p, first, last));
    put_char(p, first);
    if (last > first) {
        buf_append_str(p->out, "-");
        put_char(p, last);
    }
    return 0;
}

/* One character or range, or \w and its like. first: right after the [ or [^. */
static int parse_class_member(struct parser *p, bool first)
{
    struct meaning from;
    struct meaning to;
    bool dash = next_is(p, '-');
    TRY(parse_class_item(p, &from));
    if (dash && !first && !next_is(p, ']')) {
        return refuse(p, "a - between others in a class (write \\-)");
    }
    if (from.set != NULL) {
        return put_class_set(p, &from);
    }
    if (p->end - p->at < 2 || p->at[0] != '-' || p->at[1] == ']') {
        return put_class_range(p, from.c, from.c);
    }
    p->at++;
    TRY(parse_class_item(p, &to));
    if (to.set != NULL) {
        return refuse(p, "a class of characters at the end of a range");
    }
    return put_class_range(p, from.c, to.c);
}

/* After the [. */
static int parse_class(struct parser *p)
{
    buf_append_str(p->out, skip(p, "^") ? "[^" : "[");
    if (next_is(p, ']')) {
        return refuse(p, "a ] at the start of a class (write \\])");
    }
    for (bool first = true; !next_is(p, ']'); first = false) {
        if (p->at == p->end) {
            return refuse(p, "a class without ]");
        }
        TRY(parse_class_member(p, first));
    }
    p->at++;
    buf_append_str(p->out, "]");
    return 0;
}

/* ---- atoms */

/* Where case is ignored Oniguruma also takes one character for some pairs (the sharp s for ss). */
static int put_literal(struct parser *p, uint32_t c)
{
    static const char *const pairs[] = {"ff", "fi", "fl", "ss", "st"};
    TRY(check_range(p, c, c));
    if (p->caseless && c > 0x7f) {
        return refuse(p, "characters that are not ASCII where (?i: ignores case");
    }
    int lower = c < 0x80 ? tolower((int)c) : -1;
    for (size_t i = 0; p->caseless && i < sizeof pairs / sizeof pairs[0]; i++) {
        if (p->literal_before == pairs[i][0] && lower == pairs[i][1]) {
            return refuse(p, "one of ff fi fl ss st where (?i: ignores case");
        }
    }
    p->literal_before = lower;
    put_char(p, c);
    return 0;
}

/* After the (. *place: it matches no text, so it takes no quantifier. */
static int parse_group(struct parser *p, bool *place)
{
    static const char *const opens[] = {"?:", "?>", "?=", "?!", "?<=", "?<!", "?i:", "?-i:"};
    const char *open = "?:";
    bool caseless = p->caseless;
    if (next_is(p, '?')) {
        size_t i = 0;
        while (i < sizeof opens / sizeof opens[0] && !skip(p, opens[i])) {
            i++;
        }
        if (i == sizeof opens / sizeof opens[0]) {
            return refuse(p, "a (? that is not supported ((?: (?> (?= (?! (?<= (?<! (?i: are)");
        }
        open = opens[i];
    }
    if (++p->depth > DEPTH_MAX) {
        return refuse(p, "groups too deep in each other");
    }
    *place = strpbrk(open, "=!") != NULL;
    p->caseless = strchr(open, 'i') != NULL ? open[1] == 'i' : caseless;
    buf_printf(p->out, "(%s", open);
    TRY(parse_alternatives(p));
    if (!skip(p, ")")) {
        return refuse(p, "a ( without )");
    }
    buf_append_str(p->out, ")");
    p->caseless = caseless;
    p->depth--;
    return 0;
}

/* After the backslash. */
static int parse_escaped_atom(struct parser *p, bool *place)
{
    static const char *const places[][2] = {
        {"b", "(?:(?<=[" WORD "])(?![" WORD "])|(?<![" WORD "])(?=[" WORD "]))"},
        {"B", "(?:(?<=[" WORD "])(?=[" WORD "])|(?<![" WORD "])(?![" WORD "]))"},
        {"A", "\\A"},
        {"z", "\\z"},
        {"Z", "\\Z"},
    };
    struct meaning m;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (skip(p, places[i][0])) {
            *place = true;
            buf_append_str(p->out, places[i][1]);
            return 0;
        }
    }
    TRY(parse_escape(p, &m));
    if (m.set == NULL) {
        return put_literal(p, m.c);
    }
    if (p->caseless) {
        return refuse(p, "a class of characters where (?i: ignores case");
    }
    buf_printf(p->out, m.negated ? "[^%s]" : "[%s]", m.set);
    return 0;
}

static int parse_atom(struct parser *p, bool *place)
{
    int before = p->literal_before;
    *place = false;
    p->literal_before = -1;
    switch (*p->at) {
    case '(':
        p->at++;
        return parse_group(p, place);
    case '[':
        p->at++;
        return parse_class(p);
    case '.':
        p->at++;
        buf_append_str(p->out, "[^\\x{a}]");
        return 0;
    case '^':
        p->at++;
        *place = true;
        buf_append_str(p->out, "(?m:^)");
        return 0;
    case '$':
        p->at++;
        *place = true;
        buf_append_str(p->out, "(?m:$)");
        return 0;
    case '\\':
        p->at++;
        p->literal_before = before;
        return parse_escaped_atom(p, place);
    case '*':
    case '+':
    case '?':
    case '{':
        return refuse(p, "a quantifier without anything before it (write \\{ for the character)");
    default:
        p->literal_before = before;
        return put_literal(p, take(p));
    }
}

/* ---- quantifiers */

static bool parse_number(struct parser *p, unsigned *n)
{
    const uint8_t *start = p->at;
    *n = 0;
    while (p->at < p->end && isdigit(*p->at) && *n <= REPEAT_MAX) {
        *n = *n * 10 + (unsigned)(*p->at++ - '0');
    }
    return p->at > start;
}

static void insert(struct buf *b, size_t at, const char *text)
{
    size_t length = strlen(text);
    buf_reserve(b, length);
    memmove(b->data + at + length, b->data + at, b->len - at);
    memcpy(b->data + at, text, length);
    b->len += length;
}

/* After the {. The atom starts at `atom` in out. */
static int parse_interval(struct parser *p, size_t atom)
{
    unsigned low;
    unsigned high;
    bool has_low = parse_number(p, &low);
    bool comma = skip(p, ",");
    bool has_high = comma && parse_number(p, &high);
    if (!skip(p, "}") || (!has_low && !has_high)) {
        return refuse(p, "a { that starts no {n}, {n,} or {n,m} (write \\{ for the character)");
    }
    if (low > REPEAT_MAX || (has_high && (high > REPEAT_MAX || low > high))) {
        return refuse(p, "a wrong or too large {n,m}");
    }
    buf_printf(p->out, "{%u", low);
    if (has_high) {
        buf_printf(p->out, ",%u", high);
    } else if (comma) {
        buf_append_str(p->out, ",");
    }
    buf_append_str(p->out, "}");
    if (next_is(p, '?')) {
        if (!comma) {
            return refuse(p, "a {n}?");
        }
        p->at++;
        buf_append_str(p->out, "?");
    } else if (skip(p, "+")) { /* not possessive: the whole repeated */
        insert(p->out, atom, "(?:");
        buf_append_str(p->out, ")+");
    }
    return 0;
}

static int parse_quantifier(struct parser *p, size_t atom, bool place)
{
    char c = p->at < p->end ? (char)*p->at : 0;
    if (c == 0 || strchr("*+?{", c) == NULL) {
        return 0;
    }
    if (place) {
        return refuse(p, "a quantifier after what matches no text");
    }
    p->at++;
    p->literal_before = -1;
    if (c == '{') {
        TRY(parse_interval(p, atom));
    } else {
        buf_append(p->out, &c, 1);
        if (next_is(p, '?') || next_is(p, '+')) {
            buf_append(p->out, p->at++, 1);
        }
    }
    bool another = p->at < p->end && strchr("*+?{", (char)*p->at) != NULL && *p->at != 0;
    return another ? refuse(p, "a quantifier after a quantifier") : 0;
}

static int parse_alternatives(struct parser *p)
{
    p->literal_before = -1;
    while (p->at < p->end && *p->at != ')') {
        if (skip(p, "|")) {
            buf_append_str(p->out, "|");
            p->literal_before = -1;
            continue;
        }
        size_t atom = p->out->len;
        bool place;
        TRY(parse_atom(p, &place));
        TRY(parse_quantifier(p, atom, place));
    }
    p->literal_before = -1;
    return 0;
}

int pattern_translate(const char *source, size_t bytes, struct buf *out, struct err *err)
{
    const uint8_t *text = (const uint8_t *)source;
    struct parser p = {.start = text, .at = text, .end = text + bytes, .out = out, .err = err};
    TRY(parse_alternatives(&p));
    return p.at < p.end ? refuse(&p, "a ) without (") : 0;
}
