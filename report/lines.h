/* Files with a line a record, that are only ever appended to. Whoever writes may die in the middle
 * of a line, and whoever reads may come in between: a last line without its newline is none. */
#ifndef REPORT_LINES_H
#define REPORT_LINES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "lib/err.h"

/* Calls take for each whole line, without its newline. A missing file has no lines. *torn (or
 * NULL): the last one was cut. ERR_IO, ERR_DENIED. */
int lines_read(const char *path, void (*take)(void *ctx, const char *line, size_t len), void *ctx,
               bool *torn, struct err *err);
/* The JSON objects of such a file; other lines are passed over. New reference. */
int lines_read_json(const char *path, json_t **list, struct err *err);
/* Opens for appending, creates what is missing; closes a last line that was cut, so that the next
 * one begins on its own. */
int lines_open(const char *path, int *fd, struct err *err);

#endif
