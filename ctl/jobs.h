/* What a job looks like: its row and its page. */
#ifndef CTL_JOBS_H
#define CTL_JOBS_H

#include <stdbool.h>

#include "ctl/output.h"
#include "proto/rpc.h"

extern const struct listing job_listing;

/* A field with the time a waiting job is expected to start at, where that is known. */
void job_expected(struct buf *out, const json_t *job);
void job_page(const struct output *o, struct buf *out, const json_t *job);

/* COMPLETED, FAILED or CANCELLED. */
bool job_has_ended(const char *state);
/* 0 for a completed job; for one that failed or was cancelled ERR_FAILED and a sentence. */
int job_verdict(const Ds__Job *job, struct err *err);

#endif
