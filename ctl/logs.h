/* What ranks printed: of one or several, of one attempt or over all that follow. */
#ifndef CTL_LOGS_H
#define CTL_LOGS_H

#include "ctl/ctl.h"

enum log_stream { LOG_STDOUT = 1, LOG_STDERR = 2, LOG_BOTH = 3 };

struct log_request {
    uint64_t job;
    uint64_t attempt;  /* 0: the newest */
    const char *ranks; /* "0,2-3" or "all"; NULL: rank 0 */
    enum log_stream streams;
    bool follow;
    bool tail;
    uint64_t tail_lines;
};

/* Prints until there is nothing more; with follow until the attempt asked for, or else the job, has
 * ended. */
int logs_print(struct ctl *ctl, const struct log_request *request, struct err *err);

#endif
