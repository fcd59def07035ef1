#include "proto/data_spec.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf_json.h"
#include "lib/mem.h"

#define PATH_BYTES_MAX 2047u
#define ALLOWED_PREFIX "prefix of .bin and .idx"

static bool valid_prefix(const char *s)
{
    size_t len = strlen(s);
    return len > 0 && len <= PATH_BYTES_MAX && s[strcspn(s, "\n\r")] == 0;
}

static const struct yaml_field source_fields[] = {{.key = "prefix",
                                                   .type = YAML_TEXT,
                                                   .offset = offsetof(struct data_source, prefix),
                                                   .required = true,
                                                   .valid = valid_prefix,
                                                   .allowed = ALLOWED_PREFIX},
                                                  {.key = "weight",
                                                   .type = YAML_DOUBLE,
                                                   .offset = offsetof(struct data_source, weight),
                                                   .min = 1e-6,
                                                   .max = 1e6},
                                                  {.key = NULL}};

/* A prefix, or a list of sources. */
static int read_sources(const struct yaml_item *item, void *place, struct err *err)
{
    struct data_spec *d = place;
    bool list = item->kind == YAML_ITEM_LIST;
    if (list ? item->count == 0 || item->count > DATA_SOURCES_MAX
             : item->kind != YAML_ITEM_SCALAR || !valid_prefix(item->text)) {
        return yaml_refuse(item, err,
                           "no corpus is named (allowed: " ALLOWED_PREFIX
                           ", or a list of 1 to %d {prefix: PREFIX, weight: W})",
                           DATA_SOURCES_MAX);
    }
    d->sources = mem_alloc_array(list ? item->count : 1, sizeof *d->sources);
    if (!list) {
        d->source_count = 1;
        d->sources[0] = (struct data_source){mem_strdup(item->text), 1};
        return 0;
    }
    for (size_t i = 0; i < item->count; i++) {
        d->sources[i].weight = 1;
        d->source_count++;
        TRY(yaml_read(item->items[i], source_fields, &d->sources[i], err));
    }
    return 0;
}

static const struct yaml_field skip_fields[] = {{.key = "first",
                                                 .type = YAML_U64,
                                                 .offset = offsetof(struct data_skip, first),
                                                 .high = DATA_POSITION_MAX,
                                                 .required = true},
                                                {.key = "count",
                                                 .type = YAML_U64,
                                                 .offset = offsetof(struct data_skip, count),
                                                 .low = 1,
                                                 .high = DATA_POSITION_MAX,
                                                 .required = true},
                                                {.key = NULL}};

static int read_skips(const struct yaml_item *item, void *place, struct err *err)
{
    struct data_spec *d = place;
    if (item->kind != YAML_ITEM_LIST || item->count > DATA_SKIPS_MAX) {
        return yaml_refuse(item, err,
                           "a list is expected (allowed: at most %d {first: POSITION, count: N}, "
                           "in sequences of the run)",
                           DATA_SKIPS_MAX);
    }
    d->skips = mem_alloc_array(item->count + 1, sizeof *d->skips);
    for (size_t i = 0; i < item->count; i++) {
        TRY(yaml_read(item->items[i], skip_fields, &d->skips[d->skip_count++], err));
    }
    return 0;
}

#define FIM(member) .offset = offsetof(struct data_spec, fim.member)
#define TOKEN(name, member)                                                                        \
    {                                                                                              \
        .key = name, .type = YAML_U32, FIM(member), .high = INT32_MAX, .required = true            \
    }
static const struct yaml_field fim_fields[] = {
    {.key = "rate", .type = YAML_DOUBLE, FIM(rate), .min = 0, .max = 1, .required = true},
    TOKEN("begin", begin),
    TOKEN("hole", hole),
    TOKEN("end", end),
    {.key = NULL}};

static const char *const packings[] = {"stream", "documents", NULL};

static const struct yaml_field data_fields[] = {
    {.key = "train", .type = YAML_CUSTOM, .read = read_sources, .required = true},
    {.key = "valid",
     .type = YAML_TEXT,
     .offset = offsetof(struct data_spec, valid),
     .valid = valid_prefix,
     .allowed = ALLOWED_PREFIX},
    {.key = "packing",
     .type = YAML_CHOICE,
     .offset = offsetof(struct data_spec, packing),
     .choices = packings},
    {.key = "fim", .type = YAML_MAP, .fields = fim_fields},
    {.key = "skip", .type = YAML_CUSTOM, .read = read_skips},
    {.key = NULL}};

int data_spec_read(struct data_spec *d, const struct yaml_item *map, struct err *err)
{
    TRY(yaml_read(map, data_fields, d, err));
    if (d->fim.rate > 0 && d->packing != PACKING_DOCUMENTS) {
        return yaml_refuse(yaml_get(map, "fim"), err,
                           "rearranges documents before they are packed (needs packing: "
                           "documents)");
    }
    const struct fim_spec *fim = &d->fim;
    if (fim->rate > 0 &&
        (fim->begin == fim->hole || fim->begin == fim->end || fim->hole == fim->end)) {
        return yaml_refuse(yaml_get(map, "fim"), err,
                           "begin, hole and end are %u, %u and %u: nothing tells the parts of a "
                           "document apart (needs three tokens)",
                           fim->begin, fim->hole, fim->end);
    }
    return 0;
}

void data_spec_fini(struct data_spec *d)
{
    for (uint32_t i = 0; i < d->source_count; i++) {
        free(d->sources[i].prefix);
    }
    free(d->sources);
    free(d->valid);
    free(d->skips);
    *d = (struct data_spec){0};
}

void data_spec_put(struct buf *out, const struct data_spec *d)
{
    buf_append_str(out, "{\"train\": ");
    if (d->source_count == 1) {
        buf_json_text(out, d->sources[0].prefix);
    } else {
        for (uint32_t i = 0; i < d->source_count; i++) {
            buf_append_str(out, i == 0 ? "[{\"prefix\": " : ", {\"prefix\": ");
            buf_json_text(out, d->sources[i].prefix);
            buf_append_str(out, ", \"weight\": ");
            buf_json_double(out, d->sources[i].weight);
            buf_append_str(out, "}");
        }
        buf_append_str(out, "]");
    }
    buf_append_str(out, ", \"valid\": ");
    buf_json_text(out, d->valid);
    buf_printf(out, ", \"packing\": \"%s\", \"fim\": {\"rate\": ", packings[d->packing]);
    buf_json_double(out, d->fim.rate);
    buf_printf(out, ", \"begin\": %u, \"hole\": %u, \"end\": %u}, \"skip\": [", d->fim.begin,
               d->fim.hole, d->fim.end);
    for (uint32_t i = 0; i < d->skip_count; i++) {
        buf_printf(out, "%s{\"first\": %" PRIu64 ", \"count\": %" PRIu64 "}", i > 0 ? ", " : "",
                   d->skips[i].first, d->skips[i].count);
    }
    buf_append_str(out, "]}");
}
