#include "daemon/core/keys.h"

#include <stdlib.h>
#include <string.h>

#include "lib/hash.h"
#include "lib/mem.h"

static struct key_slot make(const char *key, const char *request_hash, uint64_t job)
{
    struct key_slot slot = {.job = job};
    uint8_t digest[HASH_SHA256_BYTES];
    hash_sha256(key, strlen(key), digest);
    memcpy(slot.key, digest, sizeof slot.key);
    hash_sha256(request_hash, strlen(request_hash), digest);
    memcpy(slot.request, digest, sizeof slot.request);
    return slot;
}

static struct key_slot *slot_of(const struct keys *keys, const struct key_slot *wanted)
{
    uint64_t start;
    memcpy(&start, wanted->key, sizeof start);
    size_t i = (size_t)start & (keys->capacity - 1);
    while (keys->slots[i].job != 0 &&
           memcmp(keys->slots[i].key, wanted->key, sizeof wanted->key) != 0) {
        i = (i + 1) & (keys->capacity - 1);
    }
    return &keys->slots[i];
}

void keys_fini(struct keys *keys)
{
    free(keys->slots);
    *keys = (struct keys){0};
}

void keys_add(struct keys *keys, const char *key, const char *request_hash, uint64_t job)
{
    if ((keys->count + 1) * 4 > keys->capacity * 3) {
        struct keys old = *keys;
        keys->capacity = old.capacity == 0 ? 16 : old.capacity * 2;
        keys->slots = mem_alloc_array(keys->capacity, sizeof *keys->slots);
        for (size_t i = 0; i < old.capacity; i++) {
            if (old.slots[i].job != 0) {
                *slot_of(keys, &old.slots[i]) = old.slots[i];
            }
        }
        free(old.slots);
    }
    struct key_slot slot = make(key, request_hash, job);
    *slot_of(keys, &slot) = slot;
    keys->count++;
    keys->digest += hash_xxh3(&slot, sizeof slot, 0);
}

uint64_t keys_find(const struct keys *keys, const char *key, const char *request_hash, int *same)
{
    *same = 0;
    if (keys->capacity == 0) {
        return 0;
    }
    struct key_slot slot = make(key, request_hash, 0);
    const struct key_slot *found = slot_of(keys, &slot);
    *same = found->job != 0 && memcmp(found->request, slot.request, sizeof slot.request) == 0;
    return found->job;
}
