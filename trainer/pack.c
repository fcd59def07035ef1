#include "trainer/pack.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#include "lib/buf.h"
#include "lib/clock.h"
#include "lib/mem.h"
#include "trainer/pack_output.h"
#include "trainer/pack_tokenizer.h"
#include "trainer/pack_workers.h"
#include "trainer/progress.h"

#define READ_BYTES  (1u << 20)
#define BATCH_BYTES (256u << 10) /* enough to make handing it over cheap */

struct packer {
    const struct pack_options *options;
    struct pack_workers *workers;
    struct pack_batch *batch; /* being filled; NULL: none yet */
    struct pack_output train, valid;
    uint64_t train_bytes, valid_bytes; /* of text given to each */
    uint64_t read_bytes, input_bytes;  /* of the files: so far, in all */
    int64_t started_ms;
};

/* ---- documents to the threads, tokens to the output */

static int write_batch(struct packer *p, const struct pack_batch *b, struct err *err)
{
    size_t start = 0;
    if (b->rc != 0) {
        return err_set(err, b->rc, "%s", b->err.text);
    }
    for (size_t i = 0; i < b->count; i++) {
        const struct pack_document *d = &b->documents[i];
        struct pack_output *out = d->valid ? &p->valid : &p->train;
        TRY(pack_output_add(out, b->ids.ids + start, d->ids_end - start, err));
        start = d->ids_end;
    }
    progress_draw_bytes(b->read_bytes, p->input_bytes, p->train.tokens + p->valid.tokens,
                        clock_boot_ms() - p->started_ms);
    return 0;
}

static void give_batch(struct packer *p)
{
    if (p->batch != NULL) {
        p->batch->read_bytes = p->read_bytes;
        pack_workers_give(p->workers);
        p->batch = NULL;
    }
}

/* Validation gets a document whenever that keeps it within its share of what was seen so far: an
 * even spread, no randomness. */
static bool is_for_validation(struct packer *p, size_t bytes)
{
    double seen = (double)(p->train_bytes + p->valid_bytes + bytes);
    bool valid = p->options->valid_share > 0 &&
                 (double)(p->valid_bytes + bytes) <= p->options->valid_share * seen;
    *(valid ? &p->valid_bytes : &p->train_bytes) += bytes;
    return valid;
}

static int add_document(struct packer *p, const uint8_t *text, size_t bytes, const char *path,
                        struct err *err)
{
    while (p->batch == NULL && (p->batch = pack_workers_batch(p->workers)) == NULL) {
        TRY(write_batch(p, pack_workers_take(p->workers), err));
    }
    struct pack_batch *b = p->batch;
    buf_append(&b->text, text, bytes);
    mem_grow((void **)&b->documents, &b->capacity, b->count + 1, sizeof *b->documents);
    b->documents[b->count++] = (struct pack_document){
        .text_end = b->text.len, .path = path, .valid = is_for_validation(p, bytes)};
    if (b->text.len >= BATCH_BYTES) {
        give_batch(p);
    }
    return 0;
}

static int finish(struct packer *p, struct err *err)
{
    const struct pack_batch *b;
    give_batch(p);
    while ((b = pack_workers_take(p->workers)) != NULL) {
        TRY(write_batch(p, b, err));
    }
    return 0;
}

/* ---- files into documents */

/* Whether a cut at i would be within a character of UTF-8. */
static bool is_within_char(const uint8_t *text, size_t i)
{
    for (size_t back = 1; back <= 3 && back <= i && (text[i] & 0xc0) == 0x80; back++) {
        uint8_t lead = text[i - back];
        if (lead >= 0xc0) {
            return back < (lead < 0xe0 ? 2u : lead < 0xf0 ? 3u : 4u);
        } else if (lead < 0x80) {
            return false;
        }
    }
    return false;
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
        if ((line && i >= 2 * goal) || (i >= 4 * goal && !is_within_char(text, i))) {
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
    uint64_t before = p->read_bytes;
    struct buf text = {0};
    size_t looked_at = 0;
    int rc = 0;
    for (;;) {
        int got = gzread(in, buf_reserve(&text, READ_BYTES), READ_BYTES);
        int zlib_error = Z_OK;
        const char *why = gzerror(in, &zlib_error);
        if (got < 0 || (zlib_error != Z_OK && zlib_error != Z_STREAM_END)) {
            rc = zlib_error == Z_ERRNO
                     ? err_set_errno(err, "cannot read %s", path)
                     : err_set(err, ERR_DATA, "%s: damaged gzip data: %s", path, why);
            break;
        }
        if (got == 0) {
            rc = text.len > 0 ? add_document(p, text.data, text.len, path, err) : 0;
            break;
        }
        text.len += (size_t)got;
        z_off_t place = gzoffset(in); /* in the file, packed or not */
        p->read_bytes = before + (place > 0 ? (uint64_t)place : 0);
        size_t start = 0;
        size_t cut;
        while ((cut = find_cut(text.data + start, text.len - start, &looked_at,
                               p->options->document_bytes)) > 0) {
            TRY_GOTO(add_document(p, text.data + start, cut, path, err), out);
            start += cut;
            looked_at = 0;
        }
        buf_consume(&text, start);
    }
out:
    gzclose(in);
    buf_fini(&text);
    p->read_bytes = before + (uint64_t)st.st_size;
    return rc;
}

/* ---- all of it */

static unsigned core_count(void)
{
    cpu_set_t cores;
    int count = sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
    return count > 0 ? (unsigned)count : 1;
}

static uint64_t input_bytes(const struct pack_options *options)
{
    uint64_t bytes = 0;
    struct stat st;
    for (size_t i = 0; i < options->input_count; i++) {
        bytes += stat(options->inputs[i], &st) == 0 ? (uint64_t)st.st_size : 0;
    }
    return bytes;
}

static int check_documents(const struct packer *p, struct err *err)
{
    if (p->train.documents == 0) {
        return err_set(err, ERR_DATA, "there is no text in the input");
    }
    if (p->options->valid_share > 0 && p->valid.documents == 0) {
        return err_set(err, ERR_DATA,
                       "no document is small enough to be %g of %" PRIu64
                       " bytes (a smaller --document-bytes, a larger --split-valid, or more text)",
                       p->options->valid_share, p->train_bytes);
    }
    return 0;
}

/* The old corpus must not meet the new tokenizer. */
static int retract(struct packer *p, struct err *err)
{
    TRY(pack_output_retract(&p->train, err));
    return p->options->valid_share > 0 ? pack_output_retract(&p->valid, err) : 0;
}

int pack_run(const struct pack_options *options, struct pack_counts *train,
             struct pack_counts *valid, struct err *err)
{
    struct packer p = {
        .options = options, .input_bytes = input_bytes(options), .started_ms = clock_boot_ms()};
    uint32_t vocab = options->tokenizer->vocab;
    unsigned threads = options->threads > 0 ? options->threads : core_count();
    bool split = options->valid_share > 0;
    int rc;
    TRY_GOTO(pack_output_open(&p.train, options->prefix, "", vocab, err), out);
    if (split) {
        TRY_GOTO(pack_output_open(&p.valid, options->prefix, "-valid", vocab, err), out);
    }
    TRY_GOTO(pack_workers_start(&p.workers, options->tokenizer, options->eod, options->frame,
                                threads, err),
             out);
    for (size_t i = 0; i < options->input_count; i++) {
        TRY_GOTO(pack_file(&p, options->inputs[i], err), out);
    }
    TRY_GOTO(finish(&p, err), out);
    TRY_GOTO(check_documents(&p, err), out);
    TRY_GOTO(retract(&p, err), out);
    TRY_GOTO(pack_tokenizer_keep(options->prefix, options->tokenizer_name, options->tokenizer,
                                 options->eod, err),
             out);
    TRY_GOTO(pack_output_commit(&p.train, err), out);
    if (split) {
        TRY_GOTO(pack_output_commit(&p.valid, err), out);
    }
    *train = (struct pack_counts){p.train.documents, p.train.tokens};
    *valid = (struct pack_counts){p.valid.documents, p.valid.tokens};
out:
    progress_clear();
    pack_workers_stop(p.workers);
    pack_output_fini(&p.train);
    pack_output_fini(&p.valid);
    return rc;
}
