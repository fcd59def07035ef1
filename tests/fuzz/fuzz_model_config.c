/* What is accepted must survive writing, and its parameters must be countable. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "proto/model_config.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct model_config c;
    struct model_config again;
    struct err err;
    if (model_config_parse(&c, (const char *)data, len, "config.json", &err) != 0) {
        assert(err.code == ERR_INVALID && err.text[0] != 0);
        return 0;
    }
    assert(model_config_params_active(&c) <= model_config_params_total(&c));
    assert(model_config_params_total(&c) < (uint64_t)1 << 62);
    char *json = model_config_to_json(&c);
    int rc = model_config_parse(&again, json, strlen(json), "again", &err);
    assert(rc == 0);
    char *json_again = model_config_to_json(&again);
    assert(strcmp(json, json_again) == 0);
    assert(model_config_params_mtp(&c) == model_config_params_mtp(&again));
    free(json);
    free(json_again);
    return 0;
}
