/* Workloads that others recorded: SWF as in the Parallel Workloads Archive, and CSV of
 * job_id, submit, gpus, duration. Every line that cannot be right is refused with its number. */
#ifndef DAEMON_SIM_TRACE_H
#define DAEMON_SIM_TRACE_H

#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

struct trace_job {
    char *id, *user; /* owned; user NULL: unknown */
    int64_t submit_ms, run_ms;
    int64_t limit_ms; /* what its user asked for; 0: unknown */
    uint64_t procs;
};
struct trace {
    struct trace_job *jobs; /* owned; by time of submit, the first at 0 */
    size_t count, capacity;
    size_t skipped;                /* never ran, or asked for nothing */
    size_t rounded;                /* asked for a part of an accelerator, and get a whole one */
    uint64_t max_nodes, max_procs; /* of the header; 0: it does not say */
};

/* By the name's ending, .swf or .csv, else by the first line; packed by gzip or not. ERR_INVALID,
 * ERR_NOT_FOUND ... */
int trace_load(struct trace *trace, const char *path, struct err *err);
/* The same from a text (changed by reading); name for messages. */
int trace_read_swf(struct trace *trace, char *text, const char *name, struct err *err);
int trace_read_csv(struct trace *trace, char *text, const char *name, struct err *err);
void trace_fini(struct trace *trace);

/* For the readers. */
struct trace_job *trace_add(struct trace *trace);

#endif
