#include "proto/guard_spec.h"

#include <stddef.h>

#include "lib/buf.h"
#include "lib/buf_json.h"

#define AT(member) .offset = offsetof(struct guard_spec, member)
#define WHOLE32(name, from, to)                                                                    \
    {                                                                                              \
        .key = #name, .type = YAML_U32, AT(name), .low = (from), .high = (to)                      \
    }
#define REAL(name, from, to)                                                                       \
    {                                                                                              \
        .key = #name, .type = YAML_DOUBLE, AT(name), .min = (from), .max = (to)                    \
    }
static const struct yaml_field fields[] = {{.key = "enabled", .type = YAML_BOOL, AT(enabled)},
                                           WHOLE32(window, 1, GUARD_WINDOW_MAX),
                                           WHOLE32(settle, 1, GUARD_WINDOW_MAX),
                                           REAL(mad, 0, 1e6),
                                           REAL(margin, 0, 1e6),
                                           WHOLE32(patience, 1, 1000000),
                                           REAL(factor, 0, 1e6),
                                           REAL(grad_limit, 0, 1e12),
                                           WHOLE32(rollback, 1, 1000000),
                                           WHOLE32(skip, 0, 1000000),
                                           REAL(lr_factor, 1e-6, 1),
                                           WHOLE32(lr_steps, 1, 10000000),
                                           WHOLE32(forget, 1, 100000000),
                                           WHOLE32(compare_every, 0, 1000000),
                                           {.key = NULL}};

struct guard_spec guard_spec_default(void)
{
    return (struct guard_spec){.enabled = true,
                               .window = 100,
                               .settle = 20,
                               .mad = 6,
                               .margin = 0.5,
                               .patience = 20,
                               .factor = 5,
                               .rollback = 100,
                               .skip = 300,
                               .lr_factor = 0.7,
                               .lr_steps = 500,
                               .forget = 1000,
                               .compare_every = 100};
}

int guard_spec_read(const struct yaml_item *item, struct guard_spec *spec, struct err *err)
{
    TRY(yaml_read(item, fields, spec, err));
    if (spec->settle > spec->window) {
        const struct yaml_item *at = yaml_get(item, "settle");
        return yaml_refuse(at != NULL ? at : item, err,
                           "settle %u is over window %u (allowed: 1 to %u)", spec->settle,
                           spec->window, spec->window);
    }
    return 0;
}

void guard_spec_json(struct buf *out, const struct guard_spec *spec)
{
    for (const struct yaml_field *f = fields; f->key != NULL; f++) {
        const void *value = (const char *)spec + f->offset;
        buf_printf(out, "%s\"%s\": ", f == fields ? "{" : ", ", f->key);
        if (f->type == YAML_BOOL) {
            buf_append_str(out, *(const bool *)value ? "true" : "false");
        } else if (f->type == YAML_U32) {
            buf_printf(out, "%u", *(const uint32_t *)value);
        } else {
            buf_json_double(out, *(const double *)value);
        }
    }
    buf_append_str(out, "}");
}
