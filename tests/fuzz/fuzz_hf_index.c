/* What is accepted names each tensor once, in order, in files of this folder that are each listed
 * once; what is refused says why and leaves nothing. */
#include <assert.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "trainer/hf_index.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct hf_index x;
    struct err err = {0};
    int rc = hf_index_parse(&x, (const char *)data, len, "i", &err);
    if (rc != 0) {
        assert(rc == ERR_CORRUPT && err.text[0] != 0 && x.entry == NULL && x.file == NULL);
        return 0;
    }
    assert(x.count > 0 && x.file_count > 0 && x.file_count <= x.count);
    for (size_t i = 0; i < x.count; i++) {
        assert(i == 0 || strcmp(x.entry[i - 1].tensor, x.entry[i].tensor) < 0);
        assert(strchr(x.entry[i].file, '/') == NULL && x.entry[i].file[0] != '.');
    }
    for (size_t i = 1; i < x.file_count; i++) {
        assert(strcmp(x.file[i - 1], x.file[i]) < 0);
    }
    hf_index_fini(&x);
    return 0;
}
