/* An attempt on disk: STATE/attempts/JOB-EPOCH with `order.pb` (the frame of the start order; there
 * once it is accepted), what the shim needs and writes (shim.h), `spec.json` and `model.json` for
 * the trainer, `store` (store_keep.h). Its logs are in STATE/logs/JOB/EPOCH, which outlives it. */
#ifndef WORKER_ATTEMPT_DIR_H
#define WORKER_ATTEMPT_DIR_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/buf.h"
#include "lib/err.h"
#include "proto/rpc.h"

#define ATTEMPT_ORDER_FILE "order.pb"
#define ATTEMPT_FLIGHT_DIR "flight"    /* proto/flight.h */
#define ATTEMPT_SPEC_FILE  "spec.json" /* belongs to the user of the ranks */

/* Caller frees. */
char *attempt_dir_path(const char *state_dir, uint64_t job, uint64_t epoch);
char *attempt_log_path(const char *state_dir, uint64_t job, uint64_t epoch);

/* Makes the folder with the order in it, all of it durable. order: a whole frame. */
int attempt_dir_accept(const char *dir, const struct buf *order, struct err *err);
/* ERR_NOT_FOUND, ERR_CORRUPT: the order was never accepted. Free with rpc_free. */
int attempt_dir_read_order(const char *dir, Ds__AttemptStart **order, struct err *err);
/* What the shim wrote last. ERR_NOT_FOUND: no rank has exited. Free with rpc_free. */
int attempt_dir_read_status(const char *dir, Ds__ShimStatus **status, struct err *err);
/* The user that the ranks of a launched attempt run as; our own when it was not launched. */
uid_t attempt_dir_uid(const char *dir);
/* A file of the folder, not durable: the processes that read it do not outlive a power loss either.
 */
int attempt_dir_write(const char *dir, const char *name, const void *data, size_t len,
                      struct err *err);

/* Listening on DIR/shim.sock; -1 with *err. Paths longer than a socket address allows are fine. */
int attempt_dir_listen(const char *dir, struct err *err);
/* Connected to it, non-blocking; -1 when nobody listens. */
int attempt_dir_connect(const char *dir);

/* Calls back for every folder in STATE/attempts that is named like one. */
typedef void (*attempt_dir_cb)(void *ctx, uint64_t job, uint64_t epoch);
int attempt_dir_each(const char *state_dir, attempt_dir_cb cb, void *ctx, struct err *err);

#endif
