#include "trainer/digest.h"

#include <assert.h>
#include <openssl/evp.h>
#include <xxhash.h>

#include "lib/hash.h"

int digest_init(struct digest *d, struct err *err)
{
    d->fast = XXH3_createState();
    d->strong = EVP_MD_CTX_new();
    if (d->fast == NULL || d->strong == NULL ||
        EVP_DigestInit_ex(d->strong, EVP_sha256(), NULL) != 1) {
        digest_fini(d);
        return err_set(err, ERR_FAILED, "SHA-256 is not available in libcrypto");
    }
    XXH3_128bits_reset(d->fast);
    return 0;
}

void digest_update(struct digest *d, const void *data, size_t len)
{
    XXH3_128bits_update(d->fast, data, len);
    int good = EVP_DigestUpdate(d->strong, data, len);
    assert(good == 1); /* nothing in it can fail once it is set up */
}

void digest_final(struct digest *d, char xxh3[33], char sha256[65])
{
    XXH128_canonical_t canonical;
    unsigned char strong[EVP_MAX_MD_SIZE];
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(d->fast));
    hash_hex(canonical.digest, sizeof canonical.digest, xxh3);
    int good = EVP_DigestFinal_ex(d->strong, strong, NULL);
    assert(good == 1);
    hash_hex(strong, HASH_SHA256_BYTES, sha256);
}

void digest_fini(struct digest *d)
{
    XXH3_freeState(d->fast);
    EVP_MD_CTX_free(d->strong);
    *d = (struct digest){0};
}
