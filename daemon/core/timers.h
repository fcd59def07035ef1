/* Deadlines: a binary heap ordered by (time, kind, id). An entry is a reminder, not the truth:
 * whoever it fires for looks at its state, and sets it again if it is not due yet. So nothing is
 * ever removed, and a reload may set more reminders than there were. */
#ifndef DAEMON_CORE_TIMERS_H
#define DAEMON_CORE_TIMERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum timer_kind {
    TIMER_PRICE,
    TIMER_NODE,
    TIMER_JOB,
    TIMER_CKPT,
    TIMER_QUOTA,
    TIMER_RESERVATION,
    TIMER_SCHED,
};

struct timer {
    int64_t at_ms;
    enum timer_kind kind;
    uint64_t id;
};
/* A zeroed one is empty and valid. */
struct timers {
    struct timer *heap; /* owned */
    size_t count;
    size_t capacity;
};

void timers_fini(struct timers *timers);
void timers_set(struct timers *timers, enum timer_kind kind, uint64_t id, int64_t at_ms);
/* INT64_MAX when there is none. */
int64_t timers_next(const struct timers *timers);
/* Takes the first one due at now_ms; false when none is. */
bool timers_take(struct timers *timers, int64_t now_ms, struct timer *timer);

#endif
