/* A json_t as JSON, YAML or a CSV field. Reals are written with the fewest digits that read back as
 * the same number. */
#ifndef CTL_ENCODE_H
#define CTL_ENCODE_H

#include <jansson.h>
#include <stdbool.h>

#include "lib/buf.h"

/* pretty: two-space indentation and a final newline; else one line without one. */
void encode_json(struct buf *out, const json_t *value, bool pretty);
/* Block style, with a final newline. */
void encode_yaml(struct buf *out, const json_t *value);
/* A scalar as a CSV field (RFC 4180), null as nothing, an array or object as its JSON. */
void encode_csv(struct buf *out, const json_t *value);

#endif
