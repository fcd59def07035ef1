/* Where the nodes are that a waiting job could use: what the reason for its wait counts. */
#ifndef DAEMON_CORE_CENSUS_H
#define DAEMON_CORE_CENSUS_H

#include "daemon/core/state.h"

#define NAMES_SHOWN   3
#define HOLDERS_SHOWN 4

/* Each node is in one of these. */
enum whereabouts {
    FREE,
    HELD,   /* for a job that goes first */
    WINDOW, /* in the way of a reservation, or of maintenance to come */
    BUSY,
    SPARE,
    MAINTENANCE,
    DRAINING,
    DRAINED,
    DOWN,
    SILENT, /* not connected, and not given up yet */
    FENCED,
    FAULTY, /* it has the accelerators, and one that is ill is missing to the job */
    SMALL,
    KINDS
};
/* Whom nodes are kept for, and until when: a job, or else a reservation. */
struct holder {
    enum whereabouts at;
    const struct job *job;
    const struct reservation *reservation;
    int64_t until_ms;
    uint32_t count;
};
struct census {
    uint32_t count[KINDS];
    const struct node *first[KINDS][NAMES_SHOWN];
    struct holder holders[HOLDERS_SHOWN];
    uint32_t holder_count;
    uint32_t partly_ill;   /* FAULTY, and large enough without the ill ones once jobs have ended */
    int64_t most_free;     /* accelerators of one that has too few */
    uint32_t in_one_place; /* free ones, of the placement that has most */
};

void census_take(const struct core *core, const struct job *job, struct census *c);

#endif
