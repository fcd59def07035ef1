/* A scenario file: a cluster, its faults, what runs on it. docs/simulator.md describes the keys. */
#ifndef DAEMON_SIM_SCENARIO_H
#define DAEMON_SIM_SCENARIO_H

#include <stddef.h>

#include "daemon/sim/fleet.h"
#include "lib/err.h"

/* In the order of expectation_figures. */
enum figure {
    FIGURE_ETTR,
    FIGURE_GOODPUT,
    FIGURE_UTILISATION,
    FIGURE_FAILURES,
    FIGURE_RESTARTS,
    FIGURE_PREEMPTIONS,
    FIGURE_LOST_STEPS,
    FIGURE_COMPLETED,
    FIGURE_GPU_HOURS,
};
extern const char *const expectation_figures[];
struct expectation { /* the run fails when the figure is below or above */
    int figure;
    double low, high;
};

struct scenario {
    char *name;  /* owned */
    char *model; /* owned; what setup.model points to */
    struct fleet_setup setup;
    struct fleet_job *jobs; /* owned */
    size_t job_count;
    bool chain;                   /* each job after the one before */
    struct expectation *expected; /* owned */
    size_t expected_count;
};

/* name: a file, or the name of one in etc/sim or share/ds/sim. faults: the same, whose faults are
 * taken instead; "none"; NULL: its own. set: key=value of the scenario. The caller calls
 * scenario_fini. ERR_CONFIG, ERR_INVALID, ERR_NOT_FOUND. */
int scenario_load(struct scenario *s, const char *name, const char *faults, const char *const *set,
                  size_t set_count, struct err *err);
void scenario_fini(struct scenario *s);

/* What the published formula gives for the largest training job:
 * (1 - N r (u0 + dt/2)) / (1 + w/dt). */
double scenario_closed_form(const struct scenario *s);
/* Faults a node and day that stop a job, of all kinds together. */
double scenario_fault_rate(const struct scenario *s);

#endif
