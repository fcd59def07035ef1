/* A header that is accepted describes tensors that fill the data without overlap, each findable by
 * its name. The first eight bytes are the header's length, as in a file. */
#include <assert.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "trainer/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    uint64_t header_bytes;
    if (len < sizeof header_bytes) {
        return 0;
    }
    memcpy(&header_bytes, data, sizeof header_bytes);
    len -= sizeof header_bytes;
    header_bytes = header_bytes < len ? header_bytes : len;
    uint64_t data_bytes = len - header_bytes;
    struct safetensors s = {.fd = -1};
    struct err err = {0};
    int rc = safetensors_check_header(&s, (const char *)data + 8, (size_t)header_bytes, data_bytes,
                                      "f", &err);
    if (rc != 0) {
        assert(rc == ERR_CORRUPT && err.text[0] != 0);
    } else {
        uint64_t covered = 0;
        for (size_t i = 0; i < s.count; i++) {
            const struct safetensors_tensor *t = &s.tensors[i];
            assert(t->begin <= t->end && t->end <= data_bytes);
            assert(safetensors_find(&s, t->name) == t);
            covered += t->end - t->begin;
        }
        assert(covered == data_bytes);
    }
    safetensors_close(&s);
    return 0;
}
