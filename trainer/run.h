/* `dstrain run`: one rank of a job when a worker (or the launcher) started it, else the launcher.
 */
#ifndef TRAINER_RUN_H
#define TRAINER_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

struct run_options { /* all borrowed */
    const char *spec_path;
    const char *const *set; /* k=v */
    size_t set_count;
    uint32_t ranks;     /* 0: nodes x gpus_per_node of the spec */
    const char *out;    /* NULL: ./runs/<name> */
    bool dry_run;       /* says what would be run */
    const char *resume; /* NULL, "auto" or a checkpoint folder */
};

/* Is this process a rank: is DS_REPORT_SOCKET set? */
bool run_is_rank(void);
/* One rank, placed by its environment. */
int run_rank(const struct run_options *options, struct err *err);
/* Starts all ranks on this machine and is their coordinator (launcher.c). *status: what to exit
 * with, also after success. */
int launch(const struct run_options *options, int *status, struct err *err);

/* The contract's exit status (§4) of an error in a trainer. */
int run_exit_status(int code);

#endif
