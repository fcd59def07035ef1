/* The checker at the seam between core and store: it sees the rows of every commit, knows nothing
 * of the core's reasons, and keeps the books a second time.
 *
 *   no accelerator in two live allocations; intervals of an accelerator tile its time, none twice;
 *   costs follow from prices; the hash chain holds; epochs of a job grow by one, one live at most;
 *   a checkpoint is committed within its own attempt; an ended job stays ended; a spare stays with
 *   its job until something happens to that. */
#ifndef DAEMON_SIM_AUDIT_H
#define DAEMON_SIM_AUDIT_H

#include "daemon/core/core.h"
#include "daemon/core/rows.h"
#include "lib/err.h"

struct audit_gpu {
    int64_t first_ms, booked_ms; /* booked up to here; first_ms 0: not yet seen */
    enum category category;      /* of the open interval */
    uint64_t job, epoch;         /* of the live allocation; 0: none */
    uint64_t meter_job;
    uint64_t price;
};
struct audit_job {
    char *name, *stage; /* owned */
    enum job_state state;
    int64_t submitted_ms, started_ms, ended_ms;
    uint64_t epoch, epoch_commit; /* of the newest attempt, and the commit it began in */
    bool attempt_live;
    int64_t gpu_ms[CATEGORY_COUNT];
    int64_t cost_micro_usd;
    int64_t restarts;
};
struct audit {
    uint64_t *spares; /* owned; by id of the node - 1: whose spare it is, 0: nobody's */
    size_t spare_capacity;
    struct audit_gpu *gpus; /* owned; by id - 1 */
    size_t gpu_count, gpu_capacity;
    struct audit_job *jobs; /* owned; by id - 1 */
    size_t job_count, job_capacity;
    int64_t *prices; /* owned; micro-dollars an hour, by id - 1 */
    size_t price_count, price_capacity;
    uint64_t ledger_rows;
    uint8_t head[ROW_HASH_BYTES];
    int64_t gpu_ms[CATEGORY_COUNT];
    int64_t cost_micro_usd;
    uint64_t attempts, ckpts, lost_steps, events, commits, preemptions;
};

void audit_fini(struct audit *a);
/* The rows of one commit; ERR_CORRUPT with a sentence. */
int audit_commit(struct audit *a, const struct core *core, struct err *err);
/* Adds the open intervals up to now to the sums (once, at the end), and checks that they are the
 * time since each accelerator was first seen. */
int audit_close(struct audit *a, int64_t now_ms, struct err *err);

#endif
