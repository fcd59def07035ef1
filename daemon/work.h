/* Blocking work for a call, on a thread of its own: long reads of the database, digests of files.
 * Touches nothing of struct dsd; what it needs is copied into the struct that embeds struct work.
 */
#ifndef DAEMON_WORK_H
#define DAEMON_WORK_H

#include "daemon/call.h"

struct work {
    uv_work_t request;
    struct call *call;
    void (*run)(struct work *w);    /* on the other thread; sets rc and err */
    void (*finish)(struct work *w); /* back on the loop: answers the call, frees the work */
    int rc;
    struct err err;
};

void work_start(struct work *w, struct call *call, void (*run)(struct work *w),
                void (*finish)(struct work *w));

#endif
