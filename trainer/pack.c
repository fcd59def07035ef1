#include "trainer/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "lib/buf.h"
#include "lib/file.h"
#include "lib/mem.h"
#include "trainer/data.h"
#include "trainer/tokenizer_bytes.h"

/* One PREFIX.bin + .idx being written under temporary names. */
struct output {
    char *bin_path, *bin_tmp, *idx_path; /* owned */
    int fd;
    struct buf pending; /* bytes of .bin not written yet */
    struct buf lengths; /* i32 each */
    struct pack_counts counts;
    uint64_t text_bytes;
};

#define PENDING_BYTES (1u << 20)

static int output_open(struct output *o, const char *prefix, const char *suffix, struct err *err)
{
    o->bin_path = mem_printf("%s%s.bin", prefix, suffix);
    o->bin_tmp = mem_printf("%s.tmp", o->bin_path);
    o->idx_path = mem_printf("%s%s.idx", prefix, suffix);
    o->fd = open(o->bin_tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    return o->fd >= 0 ? 0 : err_set_errno(err, "cannot create %s", o->bin_tmp);
}

static int output_flush(struct output *o, struct err *err)
{
    int rc = file_write_all(o->fd, o->pending.data, o->pending.len, err);
    buf_reset(&o->pending);
    if (rc != 0) {
        err_wrap(err, "%s", o->bin_tmp);
    }
    return rc;
}

static int output_add(struct output *o, const uint8_t *text, size_t bytes, struct err *err)
{
    if (bytes >= INT32_MAX) {
        return err_set(err, ERR_DATA,
                       "a document has %zu bytes, the format allows %d (use --document-bytes)",
                       bytes, INT32_MAX - 1);
    }
    size_t tokens = bytes + 1;
    /* aligned: a buffer comes from malloc, and an even number of bytes is in it */
    uint16_t *out = (uint16_t *)(void *)buf_reserve(&o->pending, tokens * 2);
    tokenizer_bytes_encode(text, bytes, out);
    out[bytes] = TOKENIZER_BYTES_EOD;
    o->pending.len += tokens * 2;
    int32_t length = (int32_t)tokens;
    buf_append(&o->lengths, &length, sizeof length);
    o->counts.documents++;
    o->counts.tokens += tokens;
    o->text_bytes += bytes;
    return o->pending.len >= PENDING_BYTES ? output_flush(o, err) : 0;
}

static void append_u64(struct buf *b, uint64_t v)
{
    buf_append(b, &v, sizeof v);
}

/* The index is written last and durably: a corpus is there when its .idx is. */
static int output_commit(struct output *o, struct err *err)
{
    TRY(output_flush(o, err));
    if (fsync(o->fd) != 0) {
        return err_set_errno(err, "cannot fsync %s", o->bin_tmp);
    }
    int fd = o->fd;
    o->fd = -1;
    if (close(fd) != 0) {
        return err_set_errno(err, "cannot close %s", o->bin_tmp);
    }
    struct buf idx = {0};
    uint8_t type = DATA_UINT16;
    buf_append(&idx, DATA_MAGIC, DATA_MAGIC_BYTES);
    append_u64(&idx, 1);
    buf_append(&idx, &type, 1);
    append_u64(&idx, o->counts.documents); /* one sequence each */
    append_u64(&idx, o->counts.documents + 1);
    buf_append(&idx, o->lengths.data, o->lengths.len);
    uint64_t at = 0;
    for (uint64_t i = 0; i < o->counts.documents; i++) {
        int32_t length;
        memcpy(&length, o->lengths.data + 4 * i, sizeof length);
        append_u64(&idx, at);
        at += (uint64_t)length * 2;
    }
    for (uint64_t i = 0; i <= o->counts.documents; i++) {
        append_u64(&idx, i);
    }
    int rc = 0;
    if (unlink(o->idx_path) != 0 && errno != ENOENT) { /* an old index must not meet the new .bin */
        rc = err_set_errno(err, "cannot replace %s", o->idx_path);
    } else if (rename(o->bin_tmp, o->bin_path) != 0) {
        rc = err_set_errno(err, "cannot rename %s to %s", o->bin_tmp, o->bin_path);
    } else {
        rc = file_write_durable(o->idx_path, idx.data, idx.len, 0666, err);
    }
    buf_fini(&idx);
    return rc;
}

static void output_fini(struct output *o)
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

struct packer {
    const struct pack_options *options;
    struct output train, valid;
};

/* Validation gets a document whenever that keeps it within its share of what was seen so far: an
 * even spread, no randomness. */
static int add_document(struct packer *p, const uint8_t *text, size_t bytes, struct err *err)
{
    double seen = (double)(p->train.text_bytes + p->valid.text_bytes + bytes);
    bool to_valid = p->options->valid_share > 0 &&
                    (double)(p->valid.text_bytes + bytes) <= p->options->valid_share * seen;
    return output_add(to_valid ? &p->valid : &p->train, text, bytes, err);
}

/* Where the document at the start of text may end: a length, or 0 when it has to grow. A blank line
 * belongs to the document that it ends. from: bytes looked at before. */
static size_t find_cut(const uint8_t *text, size_t len, size_t *from, uint64_t goal)
{
    if (goal == 0 || len < goal) {
        return 0;
    }
    size_t first = goal > 1 ? (size_t)goal - 1 : 1;
    for (size_t i = *from > first ? *from : first; i < len; i++) {
        bool line = text[i - 1] == '\n';
        bool blank =
            line && (text[i] == '\n' || (text[i] == '\r' && i + 1 < len && text[i + 1] == '\n'));
        if (blank) {
            return i + (text[i] == '\r' ? 2 : 1);
        }
        if ((line && i >= 2 * goal) || i >= 4 * goal) {
            return i;
        }
    }
    *from = len;
    return 0;
}

static int pack_file(struct packer *p, const char *path, struct err *err)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        return err_set_errno(err, "cannot read %s", path);
    }
    if (S_ISDIR(st.st_mode)) {
        return err_set(err, ERR_DATA, "%s is a folder (give the files in it)", path);
    }
    gzFile in = gzopen(path, "rb"); /* reads plain files as they are */
    if (in == NULL) {
        return err_set_errno(err, "cannot open %s", path);
    }
    struct buf text = {0};
    size_t looked_at = 0;
    int rc = 0;
    for (;;) {
        int got = gzread(in, buf_reserve(&text, PENDING_BYTES), PENDING_BYTES);
        int zlib_error = Z_OK;
        const char *why = gzerror(in, &zlib_error);
        if (got < 0 || (zlib_error != Z_OK && zlib_error != Z_STREAM_END)) {
            rc = zlib_error == Z_ERRNO
                     ? err_set_errno(err, "cannot read %s", path)
                     : err_set(err, ERR_DATA, "%s: damaged gzip data: %s", path, why);
            break;
        }
        if (got == 0) {
            rc = text.len > 0 ? add_document(p, text.data, text.len, err) : 0;
            break;
        }
        text.len += (size_t)got;
        size_t start = 0;
        size_t cut;
        while ((cut = find_cut(text.data + start, text.len - start, &looked_at,
                               p->options->document_bytes)) > 0) {
            TRY_GOTO(add_document(p, text.data + start, cut, err), out);
            start += cut;
            looked_at = 0;
        }
        buf_consume(&text, start);
    }
out:
    gzclose(in);
    buf_fini(&text);
    return rc;
}

int pack_run(const struct pack_options *options, struct pack_counts *train,
             struct pack_counts *valid, struct err *err)
{
    struct packer p = {.options = options, .train.fd = -1, .valid.fd = -1};
    bool split = options->valid_share > 0;
    int rc;
    TRY_GOTO(output_open(&p.train, options->prefix, "", err), out);
    if (split) {
        TRY_GOTO(output_open(&p.valid, options->prefix, "-valid", err), out);
    }
    for (size_t i = 0; i < options->input_count; i++) {
        TRY_GOTO(pack_file(&p, options->inputs[i], err), out);
    }
    if (p.train.counts.documents == 0) {
        rc = err_set(err, ERR_DATA, "there is no text in the input");
        goto out;
    }
    if (split && p.valid.counts.documents == 0) {
        rc = err_set(err, ERR_DATA,
                     "no document is small enough to be %g of %llu bytes (a smaller "
                     "--document-bytes, a larger "
                     "--split-valid, or more text)",
                     options->valid_share, (unsigned long long)p.train.text_bytes);
        goto out;
    }
    TRY_GOTO(output_commit(&p.train, err), out);
    if (split) {
        TRY_GOTO(output_commit(&p.valid, err), out);
    }
    *train = p.train.counts;
    *valid = p.valid.counts;
out:
    output_fini(&p.train);
    output_fini(&p.valid);
    return rc;
}
