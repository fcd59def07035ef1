/* The user that ranks run as. A worker that is root becomes the job's user; any other runs
 * everything as itself. */
#ifndef WORKER_USER_H
#define WORKER_USER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/err.h"

struct user {
    uid_t uid;
    gid_t gid;
    uint32_t *groups; /* owned; gid is among them. None for root */
    size_t group_count;
    char *name, *home, *shell; /* owned */
};

/* ERR_NOT_FOUND when this node does not know the name. May ask a directory service: not for the
 * loop's thread. */
int user_find(struct user *user, const char *name, struct err *err);
void user_fini(struct user *user); /* a zeroed one is fine */

#endif
