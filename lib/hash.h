/* Digests of bytes in memory. Pure. */
#ifndef LIB_HASH_H
#define LIB_HASH_H

#include <stddef.h>
#include <stdint.h>

#define HASH_SHA256_BYTES 32

/* SHA-256: for what must not be forged. */
void hash_sha256(const void *data, size_t len, uint8_t digest[HASH_SHA256_BYTES]);
/* Lower-case hex with a NUL: 2 * len + 1 bytes of text. */
void hash_hex(const uint8_t *digest, size_t len, char *text);
/* XXH3-64 with a seed, for comparing; chain calls by passing the last result as the seed. */
uint64_t hash_xxh3(const void *data, size_t len, uint64_t seed);

#endif
