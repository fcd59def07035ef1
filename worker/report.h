/* What the coordinator is told of an attempt, as a message. */
#ifndef WORKER_REPORT_H
#define WORKER_REPORT_H

#include "proto/ds.pb-c.h"
#include "worker/agent.h"

/* A message and the memory it points to; texts are the attempt's. */
struct report {
    Ds__AttemptReport message;
    Ds__RankExit *exits;
    Ds__RankExit **list;
};

/* What may be told now. */
void report_init(struct report *r, const struct agent_attempt *a);
/* All that is known, with phase 3: for the record on disk. */
void report_init_end(struct report *r, const struct agent_attempt *a);
void report_fini(struct report *r);

#endif
