/* MANIFEST.json of a checkpoint folder: what is in it and the digests. Written once, by rename,
 * after every shard is durable.
 *
 *   {"schema":"ds/manifest/v1","job":12,"epoch":3,"step":100,"world_size":4,"layout":{...},
 *    "shards":[{"rank":0,"file":"shard-00000-of-00004.safetensors","bytes":N,"xxh3":"...","sha256":"..."},
 * ...]}
 *
 * The text is canonical (fixed key order, no spaces), so that equal facts give equal bytes and one
 * sha256. */
#ifndef PROTO_MANIFEST_H
#define PROTO_MANIFEST_H

#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/err.h"

#define MANIFEST_FILE "MANIFEST.json"

struct manifest_shard {
    uint32_t rank;
    char file[128]; /* no '/', server side re-checks */
    uint64_t bytes;
    char xxh3[33]; /* lower-case hex, XXH3-128 */
    char sha256[65];
};
struct manifest {
    uint64_t job, epoch, step;
    uint32_t world_size;
    char *layout; /* owned; JSON object, opaque here: mesh, model and data facts of the run */
    struct manifest_shard *shards; /* owned; world_size items, by rank */
};

void manifest_fini(struct manifest *m);
void manifest_encode(const struct manifest *m, struct buf *out);
int manifest_parse(struct manifest *m, const char *text, size_t len, const char *name,
                   struct err *err);
/* Reads dir/MANIFEST.json. */
int manifest_read(struct manifest *m, const char *dir, struct err *err);
/* Durable and idempotent: the same text already in place is success, another one ERR_CONFLICT. */
int manifest_publish(const char *dir, const char *text, size_t len, struct err *err);

/* Both digests of a file in one pass. */
int manifest_digest_file(const char *path, uint64_t *bytes, char xxh3[33], char sha256[65],
                         struct err *err);
void manifest_digest_text(const void *data, size_t len, char sha256[65]);
/* Every shard there, with its size and digests. strict also checks the sha256. The message names
 * file and rank. */
int manifest_verify(const struct manifest *m, const char *dir, int strict, struct err *err);

#endif
