#include "ctl/help.h"

#include <stdio.h>
#include <string.h>

#include "ctl/session.h"

#define LEFT_COLUMN 34

static void append_option(struct buf *out, const struct option *o)
{
    char left[128];
    char letter[8] = "    ";
    if (o->letter != 0) {
        snprintf(letter, sizeof letter, "-%c, ", o->letter);
    }
    const char *value = o->value != NULL ? o->value : "";
    snprintf(left, sizeof left, "%s--%s%s%s", letter, o->name,
             value[0] != 0 && value[0] != '[' ? " " : "", value);
    if (strlen(left) + 4 > LEFT_COLUMN) {
        buf_printf(out, "  %s\n  %*s%s\n", left, LEFT_COLUMN - 2, "", o->help);
    } else {
        buf_printf(out, "  %-*s%s\n", LEFT_COLUMN - 2, left, o->help);
    }
}

/* command: whose options these are, or may be replaced by; or NULL. */
static void append_options(struct buf *out, const char *heading, const struct option *options,
                           const struct command *command)
{
    buf_printf(out, "\n%s\n", heading);
    for (; options->name != NULL; options++) {
        if (args_option(command, options->name, strlen(options->name)) == options) {
            append_option(out, options);
        }
    }
}

static void append_commands(struct buf *out, const char *noun)
{
    const char *last = "";
    for (const struct command *c = commands; c->noun != NULL; c++) {
        if (noun != NULL && strcmp(c->noun, noun) != 0) {
            continue;
        }
        if (strcmp(c->noun, last) != 0) {
            buf_append_str(out, "\n");
        }
        last = c->noun;
        char left[128];
        snprintf(left, sizeof left, "%s %s %s", c->noun, c->verb, c->arguments);
        buf_printf(out, "  %-*s%s", LEFT_COLUMN - 2, left, c->summary);
        if (c->alias != NULL) {
            buf_printf(out, " (short: %s)", c->alias);
        }
        buf_append_str(out, "\n");
    }
}

static void append_everywhere(struct buf *out, const struct command *command)
{
    append_options(out, "Options everywhere:", global_options, command);
}

static void command_help(struct buf *out, const struct command *c)
{
    const char *space = c->arguments[0] != 0 ? " " : "";
    buf_printf(out, "Usage: dsctl %s %s%s%s [OPTIONS]\n", c->noun, c->verb, space, c->arguments);
    if (c->alias != NULL) {
        buf_printf(out, "Short: dsctl %s%s%s [OPTIONS]\n", c->alias, space, c->arguments);
    }
    buf_printf(out, "\n%s.\n", c->summary);
    if (c->details != NULL) {
        buf_printf(out, "\n%s\n", c->details);
    }
    if (c->options != NULL) {
        append_options(out, "Options:", c->options, c);
    }
    append_everywhere(out, c);
}

void help_write(struct buf *out, const struct args *args)
{
    if (args->command != NULL) {
        command_help(out, args->command);
        return;
    }
    if (args->noun != NULL) {
        buf_printf(out, "Usage: dsctl %s VERB [ARGUMENTS] [OPTIONS]\n", args->noun);
        append_commands(out, args->noun);
        buf_printf(out, "\ndsctl %s VERB -h tells more about one.\n", args->noun);
        return;
    }
    buf_append_str(out, "Usage: dsctl NOUN VERB [ARGUMENTS] [OPTIONS]\n");
    append_commands(out, NULL);
    append_everywhere(out, NULL);
    buf_append_str(
        out,
        "\nEnvironment:\n"
        "  DS_SERVER                       where the coordinator listens: a socket's path or "
        "host:port\n"
        "                                  (default " SESSION_DEFAULT_SERVER ")\n"
        "  NO_COLOR                        no colours, unless --color always\n"
        "\nExit status: 0 ok, 1 refused or failed, 2 wrong use, 3 not found, 4 not permitted,\n"
        "5 conflict, 6 coordinator unreachable, 7 timed out, 8 partly done, 130 interrupted.\n"
        "\ndsctl NOUN VERB -h tells more about one command.\n");
}
