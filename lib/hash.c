#include "lib/hash.h"

#include <openssl/sha.h>
#include <xxhash.h>

void hash_sha256(const void *data, size_t len, uint8_t digest[HASH_SHA256_BYTES])
{
    SHA256(data, len, digest);
}

void hash_hex(const uint8_t *digest, size_t len, char *text)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        text[2 * i] = digits[digest[i] >> 4];
        text[2 * i + 1] = digits[digest[i] & 15];
    }
    text[2 * len] = 0;
}

uint64_t hash_xxh3(const void *data, size_t len, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, len, seed);
}
