/* What an attempt's end means for its job: pure, from the exits and the job's history to a verdict.
 * Exit codes are the contract's:
 *
 *   all 0                                   completed
 *   64-74, 76-78 (sysexits)                 failed: wrong use, configuration, data; trying again
 * cannot help 93                                      failed: the program asks not to be started
 * again 75, 81, 84, 85, SIGKILL, SIGTERM, unknown, node lost, could not start     again 80
 * preempted and saved                  again, not counted if it made a checkpoint 82 numbers, 86
 * storage                  held for a person 83 checkpoint invalid                   that
 * checkpoint is corrupt; again from the one before anything else, SIGSEGV and the like     failed
 * if it happened early and the job never made a checkpoint; else again
 *
 * What the trainer's guard decided at the attempt's end (core/guard.h) goes before its exits.
 *
 * Again costs a restart from the budget: more than restart_max without a newer checkpoint in
 * between and the job has failed for lack of progress. The first one after progress is at once,
 * then after backoff_first_ms, doubled each time, at most backoff_max_ms. */
#ifndef DAEMON_CORE_RECOVER_H
#define DAEMON_CORE_RECOVER_H

#include "daemon/core/state.h"

enum verdict_action { VERDICT_COMPLETE, VERDICT_RETRY, VERDICT_HOLD, VERDICT_FAIL };

struct verdict {
    enum verdict_action action;
    bool counts;                    /* a retry that costs budget */
    bool resume_is_corrupt;         /* the checkpoint that the attempt started from */
    int64_t delay_ms;               /* of a retry */
    const char *cause;              /* of the attempt's end */
    const char *class;              /* of the exit; "" when completed */
    int64_t exit_code, exit_signal; /* of the root cause; ROW_NONE when there is none */
    char text[1024];                /* for people: who, what, its last words */
};

/* job->attempt has ended everywhere. */
void recover_decide(const struct core *core, const struct job *job, struct verdict *verdict);

/* "exited with status 1", "was killed by signal 9 (KILL)", "ended in an unknown way". */
void exit_text(const struct rank_exit_row *row, char *text, size_t text_bytes);

#endif
