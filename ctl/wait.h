/* Waiting for the end of a job, over restarts of the coordinator. */
#ifndef CTL_WAIT_H
#define CTL_WAIT_H

#include "ctl/ctl.h"

/* Until it ended, or --timeout passed: ERR_TIMEOUT. *job is for rpc_free. */
int wait_for_end(struct ctl *ctl, uint64_t id, Ds__Job **job, struct err *err);
/* Prints how it ended, in the format asked for, and returns job_verdict. Frees the job. */
int wait_report(struct ctl *ctl, Ds__Job *job, struct err *err);

#endif
