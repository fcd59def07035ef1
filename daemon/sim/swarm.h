/* Many seeds, several at a time, each in a process of its own. */
#ifndef DAEMON_SIM_SWARM_H
#define DAEMON_SIM_SWARM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct swarm {
    const uint64_t *seeds; /* borrowed */
    size_t count;
    int jobs;       /* processes at a time */
    bool twice;     /* each seed again, and the hashes must be equal */
    bool fail_fast; /* no new ones after the first failure */
    bool quiet;     /* only failures and the closing line */
};

/* Prints a line for each seed as it ends and a closing one; the number of seeds that failed, or a
 * negative error when no process could be started. */
int swarm_run(const struct swarm *s);

#endif
