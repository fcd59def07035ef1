#include "ctl/terminal.h"

#include <langinfo.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

void terminal_measure(struct terminal *t, FILE *out)
{
    struct winsize size = {0};
    t->columns = 80;
    t->rows = 24;
    if (t->is_tty && ioctl(fileno(out), TIOCGWINSZ, &size) == 0) {
        t->columns = size.ws_col >= 20 ? size.ws_col : t->columns;
        t->rows = size.ws_row >= 4 ? size.ws_row : t->rows;
    }
}

void terminal_init(struct terminal *t, FILE *out, enum colour_mode mode)
{
    const char *term = getenv("TERM");
    const char *no_color = getenv("NO_COLOR");
    bool refused = no_color != NULL && no_color[0] != 0;
    int fd = fileno(out);
    *t = (struct terminal){.is_tty = fd >= 0 && isatty(fd)};
    t->colour = mode == COLOUR_ALWAYS || (mode == COLOUR_AUTO && t->is_tty && !refused &&
                                          term != NULL && strcmp(term, "dumb") != 0);
    t->utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    terminal_measure(t, out);
}

void terminal_paint(const struct terminal *t, struct buf *out, enum colour colour, const char *text)
{
    static const char *const codes[] = {"", "31", "32", "33", "34", "36", "2", "1"};
    if (!t->colour || colour == COLOUR_NONE) {
        buf_append_str(out, text);
    } else {
        buf_printf(out, "\033[%sm%s\033[0m", codes[colour], text);
    }
}

enum colour terminal_state_colour(const char *state)
{
    static const struct {
        const char *state;
        enum colour colour;
    } table[] = {
        {"RUNNING", COLOUR_GREEN},    {"STARTING", COLOUR_CYAN},   {"PENDING", COLOUR_YELLOW},
        {"SUSPENDED", COLOUR_YELLOW}, {"HELD", COLOUR_YELLOW},     {"STOPPING", COLOUR_YELLOW},
        {"COMPLETED", COLOUR_DIM},    {"FAILED", COLOUR_RED},      {"CANCELLED", COLOUR_DIM},
        {"UP", COLOUR_GREEN},         {"DRAINING", COLOUR_YELLOW}, {"DRAINED", COLOUR_YELLOW},
        {"MAINT", COLOUR_BLUE},       {"DOWN", COLOUR_RED},        {"FENCING", COLOUR_RED},
        {"COMMITTED", COLOUR_GREEN},  {"WRITING", COLOUR_CYAN},    {"CORRUPT", COLOUR_RED},
        {"DELETED", COLOUR_DIM},      {"ENDED", COLOUR_DIM},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i].state, state) == 0) {
            return table[i].colour;
        }
    }
    return COLOUR_NONE;
}
