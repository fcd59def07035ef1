#include "ctl/hint.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/command.h"
#include "ctl/text.h"
#include "lib/mem.h"

/* How many edits still look like a slip rather than another word. */
static unsigned tolerance(const char *word)
{
    size_t len = strlen(word);
    return len <= 2 ? 0 : len <= 4 ? 1 : len <= 7 ? 2 : 3;
}

static bool is_noun(const char *word)
{
    for (const struct command *c = commands; c->noun != NULL; c++) {
        if (strcmp(c->noun, word) == 0) {
            return true;
        }
    }
    return false;
}

/* The verbs of a noun: "submit, list, show". */
static void append_verbs(struct buf *out, const char *noun)
{
    const char *separator = "";
    for (const struct command *c = commands; c->noun != NULL; c++) {
        if (strcmp(c->noun, noun) == 0) {
            buf_printf(out, "%s%s", separator, c->verb);
            separator = ", ";
        }
    }
}

static void append_nouns(struct buf *out)
{
    const char *last = "";
    for (const struct command *c = commands; c->noun != NULL; c++) {
        if (strcmp(c->noun, last) != 0) {
            buf_printf(out, "%s%s", last[0] != 0 ? ", " : "", c->noun);
        }
        last = c->noun;
    }
}

struct nearest {
    const struct command *command;
    bool as_alias;
    unsigned distance;
};

static void consider(struct nearest *best, const struct command *command, bool as_alias,
                     unsigned distance)
{
    if (distance < best->distance) {
        *best = (struct nearest){command, as_alias, distance};
    }
}

/* The command that was most likely meant; command is NULL when none is near. Also finds a verb
 * without its noun, and verb and noun the wrong way round. */
static struct nearest find_nearest(const char *first, const char *second)
{
    struct nearest best = {.distance = UINT32_MAX};
    for (const struct command *c = commands; c->noun != NULL; c++) {
        unsigned noun = text_distance(first, c->noun);
        if (second != NULL && noun <= tolerance(first)) {
            unsigned verb = text_distance(second, c->verb);
            consider(&best, c, false, verb <= tolerance(second) ? noun + verb : UINT32_MAX);
        }
        if (second != NULL && strcmp(first, c->verb) == 0) {
            bool plural = strncmp(second, c->noun, strlen(c->noun)) == 0;
            consider(&best, c, false, plural ? 1 : UINT32_MAX);
        }
        if (c->alias != NULL && !is_noun(first)) {
            unsigned alias = text_distance(first, c->alias);
            consider(&best, c, true, alias <= tolerance(first) ? alias + 1 : UINT32_MAX);
        }
        if (!is_noun(first)) {
            unsigned verb = text_distance(first, c->verb);
            consider(&best, c, false, verb <= tolerance(first) ? verb + 2 : UINT32_MAX);
        }
    }
    return best;
}

int hint_command(const char *const *words, size_t count, struct err *err)
{
    if (count == 0) {
        return err_set(err, ERR_USAGE, "no command given (dsctl -h lists the commands)");
    }
    const char *second = count > 1 ? words[1] : NULL;
    struct buf list = {0};
    struct nearest best = find_nearest(words[0], second);
    if (is_noun(words[0]) && second == NULL) {
        append_verbs(&list, words[0]);
        err_set(err, ERR_USAGE, "%s: what to do is missing (one of %s)", words[0], buf_cstr(&list));
    } else if (best.command != NULL) {
        const struct command *c = best.command;
        if (best.as_alias) {
            buf_append_str(&list, c->alias);
        } else {
            buf_printf(&list, "%s %s", c->noun, c->verb);
        }
        err_set(err, ERR_USAGE, "no such command: '%.100s%s%.100s' (did you mean 'dsctl %s'?)",
                words[0], second != NULL ? " " : "", second != NULL ? second : "", buf_cstr(&list));
    } else if (is_noun(words[0])) {
        append_verbs(&list, words[0]);
        err_set(err, ERR_USAGE, "no such command: '%s %.100s' (after %s comes one of %s)", words[0],
                second, words[0], buf_cstr(&list));
    } else {
        append_nouns(&list);
        err_set(err, ERR_USAGE,
                "no such command: '%.100s' (commands start with one of %s; dsctl -h lists them)",
                words[0], buf_cstr(&list));
    }
    buf_fini(&list);
    return ERR_USAGE;
}

int hint_option(const char *word, struct err *err)
{
    char *name = mem_strdup(word + 2);
    name[strcspn(name, "=")] = 0;
    const struct option *best = NULL;
    unsigned distance = tolerance(name) + 1;
    for (const struct command *c = commands;; c++) {
        for (const struct option *o = c->noun != NULL ? c->options : global_options;
             o != NULL && o->name != NULL; o++) {
            unsigned d = text_distance(name, o->name);
            if (d < distance) {
                distance = d;
                best = o;
            }
        }
        if (c->noun == NULL) {
            break;
        }
    }
    if (best != NULL) {
        err_set(err, ERR_USAGE, "no such option: '--%.100s' (did you mean '--%s'?)", name,
                best->name);
    } else {
        err_set(err, ERR_USAGE, "no such option: '--%.100s' (dsctl COMMAND -h lists the options)",
                name);
    }
    free(name);
    return ERR_USAGE;
}
