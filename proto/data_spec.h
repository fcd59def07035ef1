/* train.data of a job file: what a run is trained on.
 *
 *   data: {train: data/corpus, valid: data/corpus-valid}
 *   data:
 *     train: [{prefix: data/web, weight: 0.8}, {prefix: data/code, weight: 0.2}]
 *     valid: data/valid
 *     packing: documents                        # default stream
 *     fim: {rate: 0.1, begin: 257, hole: 258, end: 259}
 *     skip: [{first: 12800, count: 4800}]       # positions: sequences of the run, from 0
 */
#ifndef PROTO_DATA_SPEC_H
#define PROTO_DATA_SPEC_H

#include <stdint.h>

#include "lib/buf.h"
#include "lib/err.h"
#include "lib/yaml.h"

#define DATA_SOURCES_MAX  64
#define DATA_SKIPS_MAX    1000
#define DATA_POSITION_MAX 1000000000000000000ull /* 10^18 */

enum packing_kind { PACKING_STREAM, PACKING_DOCUMENTS };

struct data_source {
    char *prefix;  /* owned; of .bin/.idx, absolute */
    double weight; /* share of the sequences, beside the others' weights; default 1 */
};
struct fim_spec {
    double rate;               /* of the documents; 0: none */
    uint32_t begin, hole, end; /* token ids */
};
struct data_skip {
    uint64_t first, count;
};
struct data_spec {
    struct data_source *sources; /* owned; at least one */
    uint32_t source_count;
    char *valid; /* owned; prefix, absolute; or NULL: no validation */
    enum packing_kind packing;
    struct fim_spec fim;
    struct data_skip *skips; /* owned; as the job file has them */
    uint32_t skip_count;
};

/* Reads a zeroed *d from the map. Paths stay as they stand. */
int data_spec_read(struct data_spec *d, const struct yaml_item *map, struct err *err);
void data_spec_fini(struct data_spec *d); /* a zeroed one is fine */
/* Appends the JSON object that parses back. */
void data_spec_put(struct buf *out, const struct data_spec *d);

#endif
