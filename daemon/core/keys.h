/* Every idempotency key ever used with a submit: key -> (hash of the request, job). It is kept as
 * long as the job's row is, because the table has the key UNIQUE; so an entry is small: digests
 * instead of texts. */
#ifndef DAEMON_CORE_KEYS_H
#define DAEMON_CORE_KEYS_H

#include <stddef.h>
#include <stdint.h>

struct key_slot {
    uint8_t key[16];     /* first half of SHA-256 of the key */
    uint8_t request[16]; /* the same of the request hash */
    uint64_t job;        /* 0: empty */
};
/* A zeroed one is empty and valid. */
struct keys {
    struct key_slot *slots; /* owned; a power of two */
    size_t capacity;
    size_t count;
    uint64_t digest; /* over all entries, in no order */
};

void keys_fini(struct keys *keys);
/* The key must not be there yet. */
void keys_add(struct keys *keys, const char *key, const char *request_hash, uint64_t job);
/* The job of this key, 0 when it is new. *same: whether it came with this very request. */
uint64_t keys_find(const struct keys *keys, const char *key, const char *request_hash, int *same);

#endif
