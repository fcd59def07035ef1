/* What the coordinator has a worker do to checkpoint folders on shared storage. All of it blocks. A
 * worker that is root does it as the folder's owner: what a user may have put in the way (a link)
 * then leads nowhere that the user could not go. */
#ifndef WORKER_CKPT_ORDER_H
#define WORKER_CKPT_ORDER_H

#include "lib/err.h"

/* manifest_publish in the checkpoint folder. */
int ckpt_publish(const char *path, const char *manifest, struct err *err);
/* Idempotent. The manifest goes first, so that what is half removed is never taken for whole. */
int ckpt_remove(const char *path, struct err *err);
/* A path that ends as a checkpoint's does, `t00003-e00007/step-100`, is absolute and has no `..`.
 * Nothing else is ever removed. */
int ckpt_check_path(const char *path, struct err *err);

#endif
