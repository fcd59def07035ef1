/* job logs */
#include <inttypes.h>

#include "ctl/cmd.h"
#include "ctl/interrupt.h"
#include "ctl/logs.h"

int cmd_job_logs(struct ctl *ctl, struct err *err)
{
    const struct args *a = &ctl->args;
    struct log_request request = {.streams = LOG_BOTH};
    TRY(args_id(a->words[0], "job", &request.job, err));
    TRY(args_u64(a, "attempt", &request.attempt, err));
    TRY(args_u64(a, "tail", &request.tail_lines, err));
    request.tail = args_has(a, "tail");
    request.follow = args_has(a, "follow");
    request.ranks = args_get(a, "rank");
    if (args_has(a, "stdout") != args_has(a, "stderr")) {
        request.streams = args_has(a, "stdout") ? LOG_STDOUT : LOG_STDERR;
    }
    if (ctl->output.format != OUTPUT_TABLE && ctl->output.format != OUTPUT_WIDE &&
        ctl->output.format != OUTPUT_JSON) {
        return err_set(
            err, ERR_USAGE,
            "job logs prints text, or with -o json one object a line (no yaml, csv, name)");
    }
    if (request.follow) {
        interrupt_say("\ndsctl: job %" PRIu64 " goes on (come back with: dsctl job logs %" PRIu64
                      " -f)\n",
                      request.job, request.job);
    }
    return logs_print(ctl, &request, err);
}
