/* What became of a command that was given several targets. */
#ifndef CTL_OUTCOME_H
#define CTL_OUTCOME_H

#include "ctl/ctl.h"

struct deed {
    const char *kind; /* "job" */
    const char *name; /* key of the target in an item: "id" */
    const char *done; /* "cancelled" */
    const char *verb; /* "cancel" */
};

/* outcomes: items of {id or name, code, text}; the reference is stolen. A line on stdout for each
 * success, one on stderr for each failure. Returns tally_result. */
int outcome_report(struct ctl *ctl, const struct deed *deed, json_t *outcomes, struct err *err);

/* One result of several. A zeroed one is empty. */
struct tally {
    size_t count, failed;
    int code;
};
void tally_add(struct tally *t, int code);
/* 0, ERR_PARTLY when some failed, and when all failed the code they share or ERR_FAILED. The text
 * is empty: each failure has had its own line. */
int tally_result(const struct tally *t, struct err *err);

#endif
