/* The random simulation of a small cluster under every fault that the design promises to survive.
 */
#ifndef DAEMON_SIM_CHAOS_H
#define DAEMON_SIM_CHAOS_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/sim/count.h"

/* Runs one seed and returns the hash of all that happened; what is wrong ends the process with
 * status 1, after a line that names the seed. verbose: tells what happens; quiet: no closing line;
 * counts: what happened, even when the process ends here. */
uint64_t chaos_run(uint64_t seed, bool verbose, bool quiet, struct counts *counts);

#endif
