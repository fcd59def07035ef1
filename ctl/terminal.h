/* What the output can show. */
#ifndef CTL_TERMINAL_H
#define CTL_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "lib/buf.h"

enum colour {
    COLOUR_NONE,
    COLOUR_RED,
    COLOUR_GREEN,
    COLOUR_YELLOW,
    COLOUR_BLUE,
    COLOUR_CYAN,
    COLOUR_DIM,
    COLOUR_BOLD
};
enum colour_mode { COLOUR_AUTO, COLOUR_ALWAYS, COLOUR_NEVER };

struct terminal {
    bool is_tty;
    bool colour;
    bool utf8;      /* the locale's character set */
    size_t columns; /* 80 when it is no terminal */
    size_t rows;    /* 24 when it is no terminal */
};

/* auto: colour on a terminal that is not "dumb", unless NO_COLOR is set and not empty. */
void terminal_init(struct terminal *t, FILE *out, enum colour_mode mode);
/* Reads the size again. */
void terminal_measure(struct terminal *t, FILE *out);

/* Appends text in a colour when the terminal has colours, else as it is. */
void terminal_paint(const struct terminal *t, struct buf *out, enum colour colour,
                    const char *text);
/* Of a job, node, attempt or checkpoint state; COLOUR_NONE for an unknown one. */
enum colour terminal_state_colour(const char *state);

#endif
