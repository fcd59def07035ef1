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

void manifest_fini(struct manifest *m); /* a zeroed one is fine */
/* Writes layout as it stands: give it the form of manifest_layout. */
void manifest_encode(const struct manifest *m, struct buf *out);
/* ERR_CORRUPT for anything but a whole manifest: each rank once and in order, file names without a
 * folder, digests in lower-case hex. name: for messages. */
int manifest_parse(struct manifest *m, const char *text, size_t len, const char *name,
                   struct err *err);
/* What a rank reports as layout, checked (ERR_INVALID unless it is one JSON object of at most 64
 * KiB) and in the one form that goes into a manifest. Caller frees *canonical. */
int manifest_layout(const char *text, char **canonical, struct err *err);
/* The same check for one shard as in manifest_parse: ERR_INVALID. For reports of ranks. */
int manifest_check_shard(const struct manifest_shard *shard, struct err *err);
/* Reads dir/MANIFEST.json. ERR_NOT_FOUND when it was never published. */
int manifest_read(struct manifest *m, const char *dir, struct err *err);
/* Durable and idempotent: the same text already in place is success, another one ERR_CONFLICT. */
int manifest_publish(const char *dir, const char *text, size_t len, struct err *err);

/* Both digests of a file in one pass. */
int manifest_digest_file(const char *path, uint64_t *bytes, char xxh3[33], char sha256[65],
                         struct err *err);
void manifest_digest_text(const void *data, size_t len, char sha256[65]);
/* Every shard there, with its size and digests, or ERR_CORRUPT (ERR_IO when reading itself fails).
 * strict also checks the sha256. The message names file and rank. */
int manifest_verify(const struct manifest *m, const char *dir, int strict, struct err *err);

#endif
