/* An index that is accepted covers exactly the .bin. The first eight bytes are the size of the
 * .bin. */
#include <assert.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "trainer/data.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    uint64_t bin_bytes;
    if (len < sizeof bin_bytes) {
        return 0;
    }
    memcpy(&bin_bytes, data, sizeof bin_bytes);
    bin_bytes &= INT64_MAX; /* a file's size */
    struct dataset d = {0};
    struct err err = {0};
    int rc = dataset_check_index(&d, data + 8, len - 8, bin_bytes, "f", &err);
    if (rc != 0) {
        assert(rc == ERR_DATA && err.text[0] != 0);
    } else {
        assert(d.tokens * d.token_bytes == bin_bytes && d.documents <= len && d.sequences <= len);
    }
    return 0;
}
