/* The audit of the ledger, from the tables alone: the hash chain, rows within an accelerator that
 * neither overlap nor leave a gap up to its open meter, costs that follow from the prices,
 * allocated + down + planned_down + idle = reported. */
#ifndef DAEMON_LEDGER_VERIFY_H
#define DAEMON_LEDGER_VERIFY_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

#define LEDGER_PROBLEMS_MAX 20

struct ledger_verdict {
    bool ok;       /* no problem was found */
    uint64_t rows; /* closed intervals looked at */
    char head[65]; /* hash of the newest row, hex; 64 zeros for an empty ledger */
    int64_t allocated_ms, down_ms, planned_down_ms, idle_ms; /* closed and open, up to now */
    int64_t reported_ms; /* measured on its own: time since each accelerator was first seen */
    char *problems[LEDGER_PROBLEMS_MAX]; /* owned; the first ones, a sentence each */
    size_t problem_count;
};

/* db: any connection, read-only will do; one snapshot is taken. Blocking, a second for a million
 * rows. now_ms: up to when open meters count. Fails only when the tables cannot be read; what is
 * wrong in them is a problem in the verdict. */
int ledger_verify(sqlite3 *db, int64_t now_ms, struct ledger_verdict *verdict, struct err *err);
void ledger_verdict_fini(struct ledger_verdict *verdict);

#endif
