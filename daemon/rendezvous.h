/* The store through which the ranks of a gang find each other: small values under (job, epoch,
 * key). Pure: no I/O and no clock; the deadlines of those who wait are the caller's. Soft state:
 * after a restart of the coordinator the workers set their values again. Whether an epoch is live
 * is the caller's to know: it asks the core before each call here. */
#ifndef DAEMON_RENDEZVOUS_H
#define DAEMON_RENDEZVOUS_H

#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

#define RENDEZVOUS_KEY_MAX   256u            /* bytes */
#define RENDEZVOUS_VALUE_MAX (1024u * 1024u) /* bytes */
#define RENDEZVOUS_EPOCH_MAX                                                                       \
    (256u * 1024u * 1024u) /* bytes of all keys and values of one attempt */

struct rendezvous;

/* code 0: here is the value; ERR_STALE: the epoch is over. Each waiter is answered once. May not
 * call back into the rendezvous. */
typedef void (*rendezvous_answer)(void *world, uint64_t waiter, int code, const void *value,
                                  size_t len);

struct rendezvous *rendezvous_create(rendezvous_answer answer, void *world);
void rendezvous_destroy(struct rendezvous *r); /* answers nobody */

/* Answers all who wait for the key. The same key again replaces the value, so that a worker may
 * repeat itself. ERR_TOO_LARGE, ERR_INVALID. */
int rendezvous_set(struct rendezvous *r, uint64_t job, uint64_t epoch, const char *key,
                   const void *value, size_t len, struct err *err);
/* NULL when the key is not there. Valid until the next call. */
const void *rendezvous_get(const struct rendezvous *r, uint64_t job, uint64_t epoch,
                           const char *key, size_t *len);
/* waiter: chosen by the caller, never twice. */
int rendezvous_wait(struct rendezvous *r, uint64_t job, uint64_t epoch, const char *key,
                    uint64_t waiter, struct err *err);
/* It does not want to know any more. The same arguments as those of rendezvous_wait; unknown is
 * fine. */
void rendezvous_forget(struct rendezvous *r, uint64_t job, uint64_t epoch, const char *key,
                       uint64_t waiter);
/* Answers the waiters of this epoch and all older ones of the job with ERR_STALE and drops the
 * values. */
void rendezvous_void(struct rendezvous *r, uint64_t job, uint64_t epoch);

size_t rendezvous_bytes(const struct rendezvous *r);

#endif
