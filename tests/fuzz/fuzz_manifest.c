/* What is accepted must survive encoding, and a layout must have one form. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "proto/manifest.h"
#include "tests/fuzz/fuzz.h"

static void check_layout(const uint8_t *data, size_t len)
{
    char *text = mem_alloc(len + 1);
    char *canonical;
    char *again;
    memcpy(text, data, len);
    if (manifest_layout(text, &canonical, NULL) == 0) {
        int rc = manifest_layout(canonical, &again, NULL);
        assert(rc == 0 && strcmp(canonical, again) == 0);
        free(canonical);
        free(again);
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct manifest m;
    struct manifest again;
    struct buf text = {0};
    struct buf text_again = {0};
    struct err err;
    check_layout(data, len);
    if (manifest_parse(&m, (const char *)data, len, "m", &err) != 0) {
        assert(err.code == ERR_CORRUPT && m.shards == NULL && m.layout == NULL);
        return 0;
    }
    manifest_encode(&m, &text);
    int rc = manifest_parse(&again, buf_cstr(&text), text.len, "again", &err);
    assert(rc == 0);
    manifest_encode(&again, &text_again);
    assert(strcmp(buf_cstr(&text), buf_cstr(&text_again)) == 0);
    manifest_fini(&m);
    manifest_fini(&again);
    buf_fini(&text);
    buf_fini(&text_again);
    return 0;
}
