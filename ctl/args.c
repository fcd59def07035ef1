/* Two passes. The first takes the line apart: which word is an option, which is an option's value,
 * which is a word. It can do so before it knows the command because an option name means the same
 * kind of value in all commands (a unit test sees to it). The second finds the command in the words
 * and checks that it takes those options and that many arguments. */
#include "ctl/args.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "ctl/hint.h"
#include "lib/mem.h"
#include "proto/jobspec.h"

/* ---- looking up */

static const struct option *find_in(const struct option *options, const char *name, size_t len,
                                    char letter)
{
    for (; options != NULL && options->name != NULL; options++) {
        bool by_name =
            name != NULL && strlen(options->name) == len && memcmp(options->name, name, len) == 0;
        if (by_name || (name == NULL && options->letter == letter && letter != 0)) {
            return options;
        }
    }
    return NULL;
}

static const struct option *find(const struct command *command, const char *name, size_t len,
                                 char letter)
{
    if (command != NULL) { /* its own go first: `ckpt export -o DIR` */
        const struct option *own = find_in(command->options, name, len, letter);
        return own != NULL ? own : find_in(global_options, name, len, letter);
    }
    const struct option *found = find_in(global_options, name, len, letter);
    for (const struct command *c = commands; found == NULL && c->noun != NULL; c++) {
        found = find_in(c->options, name, len, letter);
    }
    return found;
}

const struct option *args_option(const struct command *command, const char *name, size_t len)
{
    return find(command, name, len, 0);
}

const struct option *args_option_letter(const struct command *command, char letter)
{
    return find(command, NULL, 0, letter);
}

bool args_wants_value(const struct option *option)
{
    return option->value != NULL && option->value[0] != '[';
}

const struct command *args_command(const char *const *words, size_t count, size_t *used)
{
    *used = 0;
    for (const struct command *c = commands; c->noun != NULL && count > 0; c++) {
        if (c->alias != NULL && strcmp(c->alias, words[0]) == 0) {
            *used = 1;
            return c;
        }
        if (count > 1 && strcmp(c->noun, words[0]) == 0 && strcmp(c->verb, words[1]) == 0) {
            *used = 2;
            return c;
        }
    }
    return NULL;
}

/* ---- pass one */

static void add_given(struct args *a, const struct option *option, const char *value)
{
    a->given[a->given_count++] = (struct given){option, value};
    a->help = a->help || strcmp(option->name, "help") == 0;
    a->version = a->version || strcmp(option->name, "version") == 0;
}

/* --name, --name=value, --name value. *i is moved past a value taken. */
static int parse_long(struct args *a, int argc, char **argv, int *i, struct err *err)
{
    const char *name = argv[*i] + 2;
    size_t len = strcspn(name, "=");
    const char *value = name[len] == '=' ? name + len + 1 : NULL;
    const struct option *option = args_option(NULL, name, len);
    if (option == NULL) {
        return hint_option(argv[*i], err);
    }
    if (option->value == NULL && value != NULL) {
        return err_set(err, ERR_USAGE, "option --%s takes no value (leave out '=%s')", option->name,
                       value);
    }
    if (args_wants_value(option) && value == NULL) {
        if (*i + 1 >= argc) {
            return err_set(err, ERR_USAGE, "option --%s needs a value: --%s %s", option->name,
                           option->name, option->value);
        }
        value = argv[++*i];
    }
    add_given(a, option, value);
    return 0;
}

/* -f, -fv, -o json, -ojson, -o=json. */
static int parse_short(struct args *a, int argc, char **argv, int *i, struct err *err)
{
    for (const char *c = argv[*i] + 1; *c != 0; c++) {
        const struct option *option = args_option_letter(NULL, *c);
        if (option == NULL) {
            return err_set(err, ERR_USAGE, "unknown option -%c (dsctl -h lists the options)", *c);
        }
        if (!args_wants_value(option)) {
            add_given(a, option, NULL);
            continue;
        }
        const char *value = c[1] == '=' ? c + 2 : c + 1;
        if (*value == 0 && *i + 1 >= argc) {
            return err_set(err, ERR_USAGE, "option -%c needs a value: --%s %s", *c, option->name,
                           option->value);
        }
        add_given(a, option, *value != 0 ? value : argv[++*i]);
        break;
    }
    return 0;
}

static int take_apart(struct args *a, int argc, char **argv, struct err *err)
{
    bool options_over = false;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (options_over || word[0] != '-' || word[1] == 0) {
            a->words[a->word_count++] = word;
        } else if (strcmp(word, "--") == 0) {
            options_over = true;
        } else if (word[1] == '-') {
            TRY(parse_long(a, argc, argv, &i, err));
        } else {
            TRY(parse_short(a, argc, argv, &i, err));
        }
    }
    return 0;
}

/* ---- pass two */

static void drop_words(struct args *a, size_t count)
{
    a->word_count -= count;
    memmove(a->words, a->words + count, a->word_count * sizeof *a->words);
}

static bool is_choice(const char *choices, const char *value)
{
    size_t len = strlen(value);
    for (const char *c = choices;; c++) {
        size_t n = strcspn(c, "|");
        if (n == len && strncasecmp(c, value, n) == 0) {
            return true;
        }
        c += n;
        if (*c == 0) {
            return false;
        }
    }
}

static int check_options(const struct args *a, struct err *err)
{
    for (size_t i = 0; i < a->given_count; i++) {
        const struct option *o = a->given[i].option;
        const char *value = a->given[i].value;
        /* The option of the same name that this command means: its choices may differ. */
        o = args_option(a->command, o->name, strlen(o->name));
        if (o == NULL) {
            return err_set(err, ERR_USAGE,
                           "%s %s has no option --%s (dsctl %s %s -h lists its options)",
                           a->command->noun, a->command->verb, a->given[i].option->name,
                           a->command->noun, a->command->verb);
        }
        a->given[i].option = o;
        if (value != NULL && strchr(o->value, '|') != NULL && !is_choice(o->value, value)) {
            return err_set(err, ERR_USAGE, "--%s %s: no such choice (one of %s)", o->name, value,
                           o->value);
        }
    }
    return 0;
}

static int check_count(const struct args *a, struct err *err)
{
    const struct command *c = a->command;
    const char *space = c->arguments[0] != 0 ? " " : "";
    if (a->word_count < c->arguments_min) {
        return err_set(err, ERR_USAGE, "%s %s: too few arguments (usage: dsctl %s %s%s%s)", c->noun,
                       c->verb, c->noun, c->verb, space, c->arguments);
    }
    if (a->word_count > c->arguments_max) {
        return err_set(err, ERR_USAGE, "%s %s: unexpected argument '%s' (usage: dsctl %s %s%s%s)",
                       c->noun, c->verb, a->words[c->arguments_max], c->noun, c->verb, space,
                       c->arguments);
    }
    return 0;
}

int args_parse(struct args *a, int argc, char **argv, struct err *err)
{
    *a = (struct args){0};
    a->words = mem_alloc_array((size_t)argc + 1, sizeof *a->words);
    a->given = mem_alloc_array((size_t)argc + 1, sizeof *a->given);
    /* One word may hold several letters. */
    size_t letters = 0;
    for (int i = 1; i < argc; i++) {
        letters += strlen(argv[i]);
    }
    a->given = mem_resize(a->given, (letters + 1) * sizeof *a->given);
    TRY(take_apart(a, argc, argv, err));
    if (a->word_count > 0 && strcmp(a->words[0], "help") == 0) {
        a->help = true;
        drop_words(a, 1);
    }
    size_t used = 0;
    a->command = args_command(a->words, a->word_count, &used);
    if (a->command != NULL) {
        a->noun = a->command->noun;
        drop_words(a, used);
        return a->help || a->version
                   ? 0
                   : (check_options(a, err) != 0 ? ERR_USAGE : check_count(a, err));
    }
    for (const struct command *c = commands; c->noun != NULL && a->word_count > 0; c++) {
        a->noun = strcmp(c->noun, a->words[0]) == 0 ? c->noun : a->noun;
    }
    if (a->version ||
        (a->help && (a->word_count == 0 || (a->word_count == 1 && a->noun != NULL)))) {
        return 0;
    }
    return hint_command(a->words, a->word_count, err);
}

void args_fini(struct args *a)
{
    free(a->words);
    free(a->given);
    *a = (struct args){0};
}

/* ---- values */

bool args_has(const struct args *a, const char *name)
{
    for (size_t i = 0; i < a->given_count; i++) {
        if (strcmp(a->given[i].option->name, name) == 0) {
            return true;
        }
    }
    return false;
}

const char *args_get(const struct args *a, const char *name)
{
    const char *value = NULL;
    assert(a->command == NULL || args_option(a->command, name, strlen(name)) != NULL);
    for (size_t i = 0; i < a->given_count; i++) {
        value = strcmp(a->given[i].option->name, name) == 0 ? a->given[i].value : value;
    }
    return value;
}

const char **args_all(const struct args *a, const char *name, size_t *count)
{
    const char **values = mem_alloc_array(a->given_count + 1, sizeof *values);
    *count = 0;
    for (size_t i = 0; i < a->given_count; i++) {
        if (strcmp(a->given[i].option->name, name) == 0) {
            values[(*count)++] = a->given[i].value;
        }
    }
    return values;
}

static bool parse_u64(const char *text, uint64_t *value)
{
    char *end = NULL;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != 0 || errno != 0 || number > INT64_MAX) {
        return false;
    }
    *value = number;
    return true;
}

int args_u64(const struct args *a, const char *name, uint64_t *value, struct err *err)
{
    const char *text = args_get(a, name);
    if (text != NULL && !parse_u64(text, value)) {
        return err_set(err, ERR_USAGE, "--%s %s: not a number (give a whole number, 0 or more)",
                       name, text);
    }
    return 0;
}

int args_i64(const struct args *a, const char *name, int64_t *value, struct err *err)
{
    const char *text = args_get(a, name);
    if (text == NULL) {
        return 0;
    }
    uint64_t size = 0;
    bool below = text[0] == '-';
    if (!parse_u64(text + below, &size) || size > INT64_MAX) {
        return err_set(err, ERR_USAGE, "--%s %s: not a number (give a whole number)", name, text);
    }
    *value = below ? -(int64_t)size : (int64_t)size;
    return 0;
}

bool args_yes(const struct args *a, const char *name)
{
    const char *text = args_get(a, name);
    return text != NULL && (text[0] == 'y' || text[0] == 'Y');
}

int args_duration(const struct args *a, const char *name, int64_t *ms, struct err *err)
{
    const char *text = args_get(a, name);
    uint64_t value = 0;
    if (text == NULL) {
        return 0;
    }
    if (duration_parse(text, &value, NULL) != 0 || value == 0 || value > INT64_MAX) {
        return err_set(err, ERR_USAGE,
                       "--%s %s: not a duration (give seconds, or 500ms, 30s, 5m, 2h, 1d)", name,
                       text);
    }
    *ms = (int64_t)value;
    return 0;
}

int args_id(const char *word, const char *kind, uint64_t *id, struct err *err)
{
    size_t len = strlen(kind);
    const char *number = strncmp(word, kind, len) == 0 && word[len] == '/' ? word + len + 1 : word;
    if (!parse_u64(number, id) || *id == 0) {
        return err_set(err, ERR_USAGE, "'%s' is not a %s id (ids are numbers such as 12, or %s/12)",
                       word, kind, kind);
    }
    return 0;
}
