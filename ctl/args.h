/* The command line, taken apart by the command tree. Options may stand anywhere; "--" ends them. */
#ifndef CTL_ARGS_H
#define CTL_ARGS_H

#include <stdint.h>

#include "ctl/command.h"

struct args {
    const struct command *command; /* NULL only with help: for all, or for `noun` */
    const char *noun;              /* or NULL */
    bool help;
    bool version;
    const char **words; /* the positional arguments; the array is owned, the strings are argv's */
    size_t word_count;
    struct given {
        const struct option *option;
        const char *value; /* NULL: none given */
    } * given;             /* owned */
    size_t given_count;
};

/* ERR_USAGE with what is wrong and the nearest right thing. Call args_fini in any case. */
int args_parse(struct args *a, int argc, char **argv, struct err *err);
void args_fini(struct args *a);

bool args_has(const struct args *a, const char *name);
/* The last value given, NULL when absent. */
const char *args_get(const struct args *a, const char *name);
/* *value is left as it is when the option is absent. ERR_USAGE when it is no such number, or no
 * duration of jobspec.h. */
int args_u64(const struct args *a, const char *name, uint64_t *value, struct err *err);
int args_duration(const struct args *a, const char *name, int64_t *ms, struct err *err);
/* The same for a number that may be below 0. */
int args_i64(const struct args *a, const char *name, int64_t *value, struct err *err);
/* "yes" or "no", which the option's choices have made sure of. */
bool args_yes(const struct args *a, const char *name);
/* All values of a repeatable option, in order; the array is the caller's, the strings argv's. */
const char **args_all(const struct args *a, const char *name, size_t *count);

/* An id as people and -o name write it: 12 or job/12. kind is "job". */
int args_id(const char *word, const char *kind, uint64_t *id, struct err *err);

/* The option of that name or letter, of this command or global; command NULL: of any command. NULL
 * when there is none. */
const struct option *args_option(const struct command *command, const char *name, size_t len);
const struct option *args_option_letter(const struct command *command, char letter);
/* Whether the option wants a value in the next word. */
bool args_wants_value(const struct option *option);
/* The command of the words in front, and how many of them name it: 1 for a short form, 2 for noun
 * and verb, 0 for none. */
const struct command *args_command(const char *const *words, size_t count, size_t *used);

#endif
