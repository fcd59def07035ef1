/* A progress bar on one terminal line of stderr. Nothing at all when stderr is no terminal. */
#ifndef TRAINER_PROGRESS_H
#define TRAINER_PROGRESS_H

#include <stddef.h>
#include <stdint.h>

/* Draws over what was drawn before. */
void progress_draw(uint64_t step, uint64_t steps, double loss, double tokens_per_s,
                   int64_t left_ms);
/* For work that is counted in bytes; at most ten times a second. */
void progress_bytes(uint64_t done, uint64_t all);
/* For a job that turns so many of `total` bytes into tokens. Likewise. */
void progress_draw_bytes(uint64_t done, uint64_t total, uint64_t tokens, int64_t elapsed_ms);
/* Removes the bar: before other output on the same terminal, and at the end. */
void progress_clear(void);

/* The lines without escape codes, cut to `columns`; text has columns + 1 bytes at least. */
void progress_format(char *text, size_t columns, uint64_t step, uint64_t steps, double loss,
                     double tokens_per_s, int64_t left_ms);
void progress_format_bytes(char *text, size_t columns, uint64_t done, uint64_t total,
                           uint64_t tokens, int64_t elapsed_ms);

#endif
