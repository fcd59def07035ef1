/* etc/prices.yaml: what an accelerator costs, by model and date. */
#ifndef DAEMON_PRICES_H
#define DAEMON_PRICES_H

#include "daemon/store.h"

/* Reads the file and adds the prices that are not in the store yet (store_set_price). Call it
 * between store_open and store_load. A price that was charged already and is now another one in the
 * file is refused with file:line (ERR_CONFLICT). store NULL: only checks the file. */
int prices_load(struct store *store, const char *path, struct err *err);

#endif
