/* One run of dsctl: what its parts share. */
#ifndef CTL_CTL_H
#define CTL_CTL_H

#include <stdio.h>

#include "ctl/args.h"
#include "ctl/output.h"
#include "ctl/session.h"

struct ctl {
    FILE *out;    /* borrowed */
    FILE *errors; /* borrowed */
    struct args args;
    struct output output;
    struct session session;
};

/* The whole program. Returns the exit status of contract §2. */
int ctl_main(int argc, char **argv, FILE *out, FILE *errors);

/* The contract's exit status of an error code: 0 to 8. */
int ctl_exit_status(int code);
/* A line on `errors`, with "dsctl: " in front: what a person should know and a script should not
 * read. */
void ctl_note(const struct ctl *ctl, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Writes to `out` at once, and empties the buf. */
int ctl_write(const struct ctl *ctl, struct buf *out, struct err *err);
/* Asks on the terminal unless --yes was given or there is no terminal. ERR_FAILED when the answer
 * is no. */
int ctl_confirm(const struct ctl *ctl, const char *question, struct err *err);

#endif
