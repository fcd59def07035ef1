/* What this worker says to the coordinator, and whether it obeys it: registration, reports, the
 * term. */
#ifndef WORKER_SESSION_H
#define WORKER_SESSION_H

#include "worker/worker.h"

/* For the link; its owner is the worker. */
extern const struct link_ops session_link_ops;

void session_report(struct worker *w, const struct agent_attempt *a, uint64_t version);

/* The highest term ever seen, from the state folder. */
int session_read_term(struct worker *w, struct err *err);
/* ERR_STALE: the term is of a coordinator that has been replaced. A higher one than ever seen is
 * made durable before this returns 0. */
int session_see_term(struct worker *w, uint64_t term, struct err *err);

#endif
