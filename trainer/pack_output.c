#include "trainer/pack_output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/file.h"
#include "lib/mem.h"
#include "trainer/out_folder.h"

#define PENDING_BYTES (1u << 20)
/* Below this Megatron-LM stores two bytes a token (DType.optimal_dtype). */
#define VOCAB_OF_TWO_BYTES 65500

int pack_output_open(struct pack_output *o, const char *prefix, const char *suffix, uint32_t vocab,
                     struct err *err)
{
    *o = (struct pack_output){.bin_path = mem_printf("%s%s.bin", prefix, suffix),
                              .bin_tmp = mem_printf("%s%s.bin.tmp", prefix, suffix),
                              .fd = -1,
                              .idx_path = mem_printf("%s%s.idx", prefix, suffix),
                              .type = vocab < VOCAB_OF_TWO_BYTES ? DATA_UINT16 : DATA_INT32};
    char *folder = out_folder_parent(prefix);
    int rc = file_mkdirs(folder, 0777, err);
    free(folder);
    TRY(rc);
    o->fd = open(o->bin_tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    return o->fd >= 0 ? 0 : err_set_errno(err, "cannot create %s", o->bin_tmp);
}

static size_t token_bytes(const struct pack_output *o)
{
    return o->type == DATA_UINT16 ? sizeof(uint16_t) : sizeof(int32_t);
}

static int flush(struct pack_output *o, struct err *err)
{
    int rc = file_write_all(o->fd, o->pending.data, o->pending.len, err);
    buf_reset(&o->pending);
    if (rc != 0) {
        err_wrap(err, "%s", o->bin_tmp);
    }
    return rc;
}

int pack_output_add(struct pack_output *o, const uint32_t *ids, size_t count, struct err *err)
{
    /* aligned: a buffer comes from malloc, and whole tokens are in it */
    void *out = buf_reserve(&o->pending, count * token_bytes(o));
    if (o->type == DATA_UINT16) {
        uint16_t *tokens = out;
        for (size_t i = 0; i < count; i++) {
            tokens[i] = (uint16_t)ids[i];
        }
    } else {
        memcpy(out, ids, count * sizeof *ids);
    }
    o->pending.len += count * token_bytes(o);
    int32_t length = (int32_t)count;
    buf_append(&o->lengths, &length, sizeof length);
    o->documents++;
    o->tokens += count;
    return o->pending.len >= PENDING_BYTES ? flush(o, err) : 0;
}

static void append_u64(struct buf *b, uint64_t v)
{
    buf_append(b, &v, sizeof v);
}

static void build_index(const struct pack_output *o, struct buf *idx)
{
    uint8_t type = (uint8_t)o->type;
    buf_append(idx, DATA_MAGIC, DATA_MAGIC_BYTES);
    append_u64(idx, 1);
    buf_append(idx, &type, 1);
    append_u64(idx, o->documents); /* one sequence each */
    append_u64(idx, o->documents + 1);
    buf_append(idx, o->lengths.data, o->lengths.len);
    uint64_t at = 0;
    for (uint64_t i = 0; i < o->documents; i++) {
        int32_t length;
        memcpy(&length, o->lengths.data + 4 * i, sizeof length);
        append_u64(idx, at);
        at += (uint64_t)length * token_bytes(o);
    }
    for (uint64_t i = 0; i <= o->documents; i++) {
        append_u64(idx, i);
    }
}

/* The index is written last: a corpus is there when its .idx is. */
int pack_output_retract(const struct pack_output *o, struct err *err)
{
    return unlink(o->idx_path) == 0 || errno == ENOENT
               ? 0
               : err_set_errno(err, "cannot replace %s", o->idx_path);
}

int pack_output_commit(struct pack_output *o, struct err *err)
{
    TRY(flush(o, err));
    if (fsync(o->fd) != 0) {
        return err_set_errno(err, "cannot fsync %s", o->bin_tmp);
    }
    int fd = o->fd;
    o->fd = -1;
    if (close(fd) != 0) {
        return err_set_errno(err, "cannot close %s", o->bin_tmp);
    }
    if (rename(o->bin_tmp, o->bin_path) != 0) {
        return err_set_errno(err, "cannot rename %s to %s", o->bin_tmp, o->bin_path);
    }
    struct buf idx = {0};
    build_index(o, &idx);
    int rc = file_write_durable(o->idx_path, idx.data, idx.len, 0666, err);
    buf_fini(&idx);
    return rc;
}

void pack_output_fini(struct pack_output *o)
{
    if (o->bin_path == NULL) {
        return;
    }
    if (o->fd >= 0) {
        close(o->fd);
    }
    unlink(o->bin_tmp); /* gone after a commit */
    free(o->bin_path);
    free(o->bin_tmp);
    free(o->idx_path);
    buf_fini(&o->pending);
    buf_fini(&o->lengths);
}
