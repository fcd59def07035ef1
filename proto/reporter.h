/* A rank's line to its worker: reports go out, rendezvous values come in. A thread of its own owns
 * the socket, reconnects for ever while the rank lives (a worker may be restarted at any time), and
 * sends every report again until it was acknowledged end to end. Thread-safe. */
#ifndef PROTO_REPORTER_H
#define PROTO_REPORTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "proto/ds.pb-c.h"

struct reporter;

/* socket_path: DS_REPORT_SOCKET. Does not wait for the connection. Copies its arguments. */
int reporter_create(struct reporter **r, const char *socket_path, uint64_t job, uint64_t epoch,
                    uint32_t rank, struct err *err);
/* Gives unsent reports up to drain_ms, then closes. */
void reporter_destroy(struct reporter *r, int64_t drain_ms);

/* Queue a report; never blocks on the network. job and epoch are filled in here. Steps waiting to
 * be sent are merged into one message; one that was sent is only ever repeated as it was, and the
 * next leaves after its acknowledgement, so a receiver knows a repeat by its last step. A report
 * that is refused (not for the time being, but for good) is logged and dropped. */
void reporter_step(struct reporter *r, const Ds__Metric *metric, uint64_t steps,
                   uint64_t ckpt_stall_ms, uint64_t data_wait_ms);
void reporter_shard(struct reporter *r, const Ds__ShardReport *shard);
void reporter_guard(struct reporter *r, const Ds__GuardReport *guard);
/* Blocks until every queued report was acknowledged. ERR_TIMEOUT; ERR_STALE when the coordinator
 * says this epoch is over. */
int reporter_flush(struct reporter *r, int64_t timeout_ms, struct err *err);

/* Rendezvous store. Both block until answered, set for 10 minutes at most; *value is malloc'd.
 * ERR_TIMEOUT, ERR_STALE, or what the store answered. */
int reporter_store_set(struct reporter *r, const char *key, const void *value, size_t len,
                       struct err *err);
int reporter_store_get(struct reporter *r, const char *key, int64_t timeout_ms, void **value,
                       size_t *len, struct err *err);

/* Someone asked this rank to save and leave (RANK_STOP), or the epoch is stale. */
bool reporter_stop_requested(const struct reporter *r);
bool reporter_is_stale(const struct reporter *r);

#endif
