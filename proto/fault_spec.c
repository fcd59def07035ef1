#include "proto/fault_spec.h"

#include <inttypes.h>
#include <stddef.h>

#include "lib/buf.h"

#define STEPS_MAX  1000000000000ull
#define RANKS_MAX  1000000
#define AT(member) .offset = offsetof(struct fault_spec, member)
#define COUNT(name)                                                                                \
    {                                                                                              \
        .key = #name, .type = YAML_U64, AT(name), .high = STEPS_MAX                                \
    }
#define RANK(name)                                                                                 \
    {                                                                                              \
        .key = #name, .type = YAML_U32, AT(name), .high = RANKS_MAX                                \
    }
static const struct yaml_field fields[] = {
    COUNT(noise_at), COUNT(noise_sequences), COUNT(inf_step), RANK(inf_rank),  COUNT(nan_step),
    RANK(nan_rank),  COUNT(flip_step),       RANK(flip_rank), COUNT(attempts), {.key = NULL}};

int fault_spec_read(const struct yaml_item *item, struct fault_spec *spec, struct err *err)
{
    return yaml_read(item, fields, spec, err);
}

void fault_spec_json(struct buf *out, const struct fault_spec *spec)
{
    for (const struct yaml_field *f = fields; f->key != NULL; f++) {
        const void *value = (const char *)spec + f->offset;
        uint64_t number = f->type == YAML_U64 ? *(const uint64_t *)value : *(const uint32_t *)value;
        buf_printf(out, "%s\"%s\": %" PRIu64, f == fields ? "{" : ", ", f->key, number);
    }
    buf_append_str(out, "}");
}
