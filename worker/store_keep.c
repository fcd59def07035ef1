/* The file is a row of STORE_SET frames in the order they came; the last one of a key counts. Not
 * fsynced: ranks that would need the values after a power loss are gone too. A half-written frame
 * at the end is what a killed worker leaves, and is cut off. */
#include "worker/store_keep.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/file.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "proto/rpc.h"

struct value {
    char *key;        /* owned */
    uint8_t *payload; /* owned; a packed StoreSet */
    uint32_t bytes;
};
struct store_keep {
    char *path;
    int fd; /* -1: not open yet */
    size_t file_bytes;
    struct value *values; /* owned */
    size_t count, capacity;
};

static void remember(struct store_keep *keep, const struct frame *f, const char *key)
{
    struct value *v = NULL;
    for (size_t i = 0; i < keep->count; i++) {
        if (strcmp(keep->values[i].key, key) == 0) {
            v = &keep->values[i];
        }
    }
    if (v == NULL) {
        void *values = keep->values;
        mem_grow(&values, &keep->capacity, keep->count + 1, sizeof *keep->values);
        keep->values = values;
        v = &keep->values[keep->count++];
        *v = (struct value){.key = mem_strdup(key)};
    }
    free(v->payload);
    v->payload = mem_alloc(f->payload_bytes);
    memcpy(v->payload, f->payload, f->payload_bytes);
    v->bytes = f->payload_bytes;
}

/* Returns how many bytes of the file are whole frames. */
static size_t load(struct store_keep *keep, const struct buf *data)
{
    size_t at = 0;
    for (;;) {
        struct frame f;
        size_t used;
        ProtobufCMessage *message = NULL;
        if (frame_decode(data->data + at, data->len - at, FRAME_PAYLOAD_MAX, &f, &used, NULL) !=
                0 ||
            f.method != RPC_STORE_SET || rpc_unpack(&f, &message, NULL) != 0) {
            return at;
        }
        remember(keep, &f, ((const Ds__StoreSet *)message)->key);
        rpc_free(message);
        at += used;
    }
}

struct store_keep *store_keep_create(const char *dir)
{
    struct store_keep *keep = mem_alloc(sizeof *keep);
    struct buf data = {0};
    keep->path = mem_printf("%s/" STORE_KEEP_FILE, dir);
    keep->fd = -1;
    if (file_read(keep->path, STORE_KEEP_BYTES_MAX, &data, NULL) == 0) {
        keep->file_bytes = load(keep, &data);
        if (keep->file_bytes < data.len && truncate(keep->path, (off_t)keep->file_bytes) != 0) {
            log_warn("cannot cut off the torn end of %s", keep->path);
        }
    }
    buf_fini(&data);
    return keep;
}

void store_keep_destroy(struct store_keep *keep)
{
    if (keep == NULL) {
        return;
    }
    if (keep->fd >= 0) {
        close(keep->fd);
    }
    for (size_t i = 0; i < keep->count; i++) {
        free(keep->values[i].key);
        free(keep->values[i].payload);
    }
    free(keep->values);
    free(keep->path);
    free(keep);
}

int store_keep_set(struct store_keep *keep, const struct frame *f, const char *key, struct err *err)
{
    struct buf encoded = {0};
    frame_encode(f, &encoded);
    int rc = 0;
    if (keep->file_bytes + encoded.len > STORE_KEEP_BYTES_MAX) {
        rc = err_set(err, ERR_TOO_LARGE,
                     "the rendezvous values of one attempt on a node are at most %u MiB",
                     STORE_KEEP_BYTES_MAX >> 20);
    }
    if (rc == 0 && keep->fd < 0) {
        keep->fd = open(keep->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        rc = keep->fd >= 0 ? 0 : err_set_errno(err, "cannot open %s", keep->path);
    }
    if (rc == 0) {
        rc = file_write_all(keep->fd, encoded.data, encoded.len, err);
        if (rc != 0) {
            err_wrap(err, "%s", keep->path);
            /* A frame cut short would hide those after it. */
            if (ftruncate(keep->fd, (off_t)keep->file_bytes) != 0) {
                log_warn("cannot cut off the torn end of %s", keep->path);
            }
        } else {
            keep->file_bytes += encoded.len;
        }
    }
    buf_fini(&encoded);
    if (rc == 0) {
        remember(keep, f, key);
    }
    return rc;
}

size_t store_keep_count(const struct store_keep *keep)
{
    return keep->count;
}

struct frame store_keep_at(const struct store_keep *keep, size_t i)
{
    return (struct frame){
        .method = RPC_STORE_SET,
        .kind = FRAME_REQUEST,
        .payload = keep->values[i].payload,
        .payload_bytes = keep->values[i].bytes,
    };
}
