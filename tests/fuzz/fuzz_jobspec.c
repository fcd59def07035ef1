/* YAML up to the first NUL, then one override. What is accepted must survive its canonical form. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "proto/jobspec.h"
#include "proto/model_config.h"
#include "tests/fuzz/fuzz.h"

static const char model_json[] =
    "{\"n_routed_experts\": 8, \"n_group\": 2, \"topk_group\": 1, \"num_experts_per_tok\": 2}";

static void parse_again(const struct jobspec *spec)
{
    struct jobspec again;
    char *json = jobspec_to_json(spec);
    int rc = jobspec_parse(&again, json, strlen(json), "canonical", "/", NULL, 0, NULL);
    assert(rc == 0);
    char *json_again = jobspec_to_json(&again);
    assert(strcmp(json, json_again) == 0);
    free(json);
    free(json_again);
    jobspec_fini(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct jobspec spec;
    struct err err;
    char *text = mem_alloc(len + 1);
    memcpy(text, data, len);
    size_t yaml_bytes = strlen(text);
    const char *set = yaml_bytes < len ? text + yaml_bytes + 1 : NULL;
    if (jobspec_parse(&spec, text, yaml_bytes, "job.yaml", "/dir", &set, set != NULL, &err) == 0) {
        struct model_config model;
        int rc = model_config_parse(&model, model_json, strlen(model_json), "m", NULL);
        assert(rc == 0);
        jobspec_check_model(&spec, &model, "job.yaml", &err);
        parse_again(&spec);
        jobspec_fini(&spec);
    } else {
        assert(err.code == ERR_INVALID && err.text[0] != 0);
    }
    free(text);
    return 0;
}
