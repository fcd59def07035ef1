/* The command tree: one struct a command, from which parsing, -h, hints and completion come. */
#ifndef CTL_COMMAND_H
#define CTL_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/buf.h"
#include "lib/err.h"

struct ctl;

/* What a positional argument names: for completion. */
enum argument {
    ARGUMENT_NONE,
    ARGUMENT_FILE,
    ARGUMENT_JOB,
    ARGUMENT_NODE,
    ARGUMENT_CKPT,
    ARGUMENT_QUEUE,
    ARGUMENT_ACCOUNT,
    ARGUMENT_MAINT,
};

#define ARGUMENTS_ANY 0xffffffffu

struct option {
    char letter; /* 0: none */
    const char *name;
    /* NULL: a flag; "WORD": takes a value; "[=WORD]": may take one, only as --name=value; "a|b|c":
     * one of these, in any case. */
    const char *value;
    const char *help;
};

struct command {
    const char *noun, *verb;
    const char *alias;     /* short form, or NULL */
    const char *arguments; /* as shown: "ID..." */
    enum argument argument;
    unsigned arguments_min, arguments_max;
    const struct option *options; /* ends with a NULL name; or NULL */
    const char *summary;          /* one line, no full stop */
    const char *details;          /* paragraphs and examples, or NULL */
    /* One of the two. A view only reads and fills a page, so that it can be repeated (--watch). A
     * command that has already said on stderr what failed returns its code with an empty text. */
    int (*view)(struct ctl *ctl, struct buf *out, struct err *err);
    int (*run)(struct ctl *ctl, struct err *err);
};

extern const struct command commands[]; /* ends with a NULL noun */
extern const struct option global_options[];

#endif
