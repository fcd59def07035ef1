#include "trainer/data.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/mem.h"

static uint32_t type_bytes(unsigned code)
{
    switch (code) {
    case DATA_UINT8:
    case DATA_INT8:
        return 1;
    case DATA_INT16:
    case DATA_UINT16:
        return 2;
    case DATA_INT32:
        return 4;
    case DATA_INT64:
        return 8;
    default:
        return 0;
    }
}

static uint64_t get_u64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static int64_t get_i64(const uint8_t *p)
{
    return (int64_t)get_u64(p);
}

static int32_t get_i32(const uint8_t *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

#define HEADER_BYTES (DATA_MAGIC_BYTES + 8 + 1 + 8 + 8)

static int check_header(struct dataset *d, uint64_t *starts, const uint8_t *index, size_t bytes,
                        const char *name, struct err *err)
{
    if (bytes < HEADER_BYTES || memcmp(index, DATA_MAGIC, DATA_MAGIC_BYTES) != 0) {
        return err_set(err, ERR_DATA,
                       "%s is not an index of tokens: it does not begin with MMIDIDX (make one "
                       "with dstrain pack)",
                       name);
    }
    const uint8_t *p = index + DATA_MAGIC_BYTES;
    uint64_t version = get_u64(p);
    if (version != 1) {
        return err_set(err, ERR_DATA, "%s: version %" PRIu64 " of the format, only 1 is known",
                       name, version);
    }
    d->token_bytes = type_bytes(p[8]);
    if (d->token_bytes == 0) {
        return err_set(err, ERR_DATA, "%s: type code %u is no integer type (1 2 3 4 5 8 are)", name,
                       p[8]);
    }
    d->type = p[8];
    d->sequences = get_u64(p + 9);
    *starts = get_u64(p + 17);
    if (*starts == 0) {
        return err_set(err, ERR_DATA, "%s: no documents (their list must at least hold its end)",
                       name);
    }
    d->documents = *starts - 1;
    uint64_t rest = bytes - HEADER_BYTES;
    if (d->sequences > rest / 12 || *starts > rest / 8 || d->sequences * 12 + *starts * 8 > rest) {
        return err_set(err, ERR_DATA,
                       "%s is truncated: %zu bytes cannot hold %" PRIu64 " sequences and %" PRIu64
                       " documents",
                       name, bytes, d->sequences, d->documents);
    }
    uint64_t more = rest - d->sequences * 12 - *starts * 8;
    if (more > 0 && more == d->sequences) {
        return err_set(err, ERR_DATA,
                       "%s has a mode for each sequence: a multimodal corpus, which is not "
                       "supported (text alone is)",
                       name);
    }
    if (more > 0) {
        return err_set(err, ERR_DATA, "%s: %" PRIu64 " bytes after the last document", name, more);
    }
    return 0;
}

int dataset_check_index(struct dataset *d, const uint8_t *index, size_t bytes, uint64_t bin_bytes,
                        const char *name, struct err *err)
{
    uint64_t starts = 0;
    TRY(check_header(d, &starts, index, bytes, name, err));
    const uint8_t *length = index + HEADER_BYTES;
    const uint8_t *pointer = length + d->sequences * 4;
    const uint8_t *document = pointer + d->sequences * 8;
    uint64_t end = 0; /* bytes of .bin that the sequences so far cover */
    for (uint64_t i = 0; i < d->sequences; i++) {
        int32_t tokens = get_i32(length + 4 * i);
        int64_t at = get_i64(pointer + 8 * i);
        if (tokens < 0) {
            return err_set(err, ERR_DATA, "%s: sequence %" PRIu64 " has length %d", name, i,
                           tokens);
        }
        if (at < 0 || (uint64_t)at != end) {
            return err_set(err, ERR_DATA,
                           "%s: sequence %" PRIu64 " begins at byte %" PRId64
                           ", where the one before ends at %" PRIu64 " (%s)",
                           name, i, at, end,
                           at < 0               ? "negative"
                           : (uint64_t)at < end ? "they overlap"
                                                : "a gap");
        }
        end += (uint64_t)tokens *
               d->token_bytes; /* cannot overflow: it was at most bin_bytes, a file's size */
        if (end > bin_bytes) {
            return err_set(err, ERR_DATA,
                           "%s: sequence %" PRIu64 " ends at byte %" PRIu64
                           ", the .bin has only %" PRIu64 " (truncated, or of another corpus)",
                           name, i, end, bin_bytes);
        }
    }
    if (end != bin_bytes) {
        return err_set(err, ERR_DATA,
                       "%s: its sequences cover %" PRIu64 " bytes, the .bin has %" PRIu64
                       " (of another corpus?)",
                       name, end, bin_bytes);
    }
    for (uint64_t i = 0; i < starts; i++) {
        int64_t at = get_i64(document + 8 * i);
        int64_t before = i > 0 ? get_i64(document + 8 * (i - 1)) : 0;
        if (at < before || (i == 0 && at != 0) || (uint64_t)at > d->sequences) {
            return err_set(err, ERR_DATA,
                           "%s: document %" PRIu64 " begins at sequence %" PRId64 " of %" PRIu64,
                           name, i, at, d->sequences);
        }
    }
    if ((uint64_t)get_i64(document + 8 * (starts - 1)) != d->sequences) {
        return err_set(err, ERR_DATA, "%s: the documents do not end with the last sequence", name);
    }
    d->tokens = end / d->token_bytes;
    return 0;
}

static int open_file(const char *path, int *fd, uint64_t *bytes, struct err *err)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0) {
        return err_set_errno(err, "cannot open the corpus file %s (make it with dstrain pack)",
                             path);
    }
    struct stat st;
    if (fstat(*fd, &st) != 0) {
        return err_set_errno(err, "cannot stat %s", path);
    }
    if (!S_ISREG(st.st_mode)) {
        return err_set(err, ERR_DATA, "%s is not a file", path);
    }
    *bytes = (uint64_t)st.st_size;
    return 0;
}

int dataset_open(struct dataset *d, const char *prefix, struct err *err)
{
    *d = (struct dataset){.bin_fd = -1};
    d->bin_path = mem_printf("%s.bin", prefix);
    char *idx_path = mem_printf("%s.idx", prefix);
    int idx_fd = -1;
    uint64_t bin_bytes = 0;
    uint64_t idx_bytes = 0;
    int rc;
    TRY_GOTO(open_file(idx_path, &idx_fd, &idx_bytes, err), out);
    TRY_GOTO(open_file(d->bin_path, &d->bin_fd, &bin_bytes, err), out);
    if (idx_bytes < HEADER_BYTES) {
        rc = err_set(err, ERR_DATA, "%s is truncated: %" PRIu64 " bytes", idx_path, idx_bytes);
        goto out;
    }
    void *index = mmap(NULL, idx_bytes, PROT_READ, MAP_PRIVATE, idx_fd, 0);
    if (index == MAP_FAILED) {
        rc = err_set_errno(err, "cannot map %s", idx_path);
        goto out;
    }
    d->index = index;
    d->index_bytes = idx_bytes;
    rc = dataset_check_index(d, index, idx_bytes, bin_bytes, idx_path, err);
out:
    if (idx_fd >= 0) {
        close(idx_fd);
    }
    free(idx_path);
    if (rc != 0) {
        dataset_close(d);
    }
    return rc;
}

void dataset_close(struct dataset *d)
{
    if (d->bin_path != NULL && d->bin_fd >= 0) {
        close(d->bin_fd);
    }
    if (d->index != NULL) {
        munmap((void *)(uintptr_t)d->index, d->index_bytes);
    }
    free(d->bin_path);
    *d = (struct dataset){.bin_fd = -1};
}

/* Place in the stream of a document's first token; of the one after the last, its end. */
static uint64_t document_start(const struct dataset *d, uint64_t document)
{
    const uint8_t *pointer = d->index + HEADER_BYTES + d->sequences * 4;
    const uint8_t *list = pointer + d->sequences * 8;
    uint64_t sequence = get_u64(list + 8 * document);
    return sequence == d->sequences ? d->tokens : get_u64(pointer + 8 * sequence) / d->token_bytes;
}

uint64_t dataset_document(const struct dataset *d, uint64_t document, uint64_t *first)
{
    assert(document < d->documents);
    *first = document_start(d, document);
    return document_start(d, document + 1) - *first;
}

static int64_t token_at(enum data_type type, const uint8_t *p)
{
    int16_t s16;
    uint16_t u16;
    switch (type) {
    case DATA_UINT8:
        return *p;
    case DATA_INT8:
        return (int8_t)*p;
    case DATA_INT16:
        memcpy(&s16, p, sizeof s16);
        return s16;
    case DATA_UINT16:
        memcpy(&u16, p, sizeof u16);
        return u16;
    case DATA_INT32:
        return get_i32(p);
    case DATA_INT64:
        return get_i64(p);
    }
    return -1; /* no such type: cannot be, the index was checked */
}

int dataset_read(const struct dataset *d, uint64_t first, size_t count, uint32_t vocab,
                 int32_t *out, struct err *err)
{
    assert(first <= d->tokens && count <= d->tokens - first && vocab <= INT32_MAX);
    uint8_t chunk[16384];
    size_t room = sizeof chunk / d->token_bytes;
    for (size_t done = 0; done < count;) {
        size_t want = (count - done < room ? count - done : room) * d->token_bytes;
        uint64_t at = (first + done) * d->token_bytes;
        size_t have = 0;
        while (have < want) {
            ssize_t got = pread(d->bin_fd, chunk + have, want - have, (off_t)(at + have));
            if (got < 0 && errno == EINTR) {
                continue;
            }
            if (got < 0) {
                return err_set_errno(err, "cannot read %s", d->bin_path);
            }
            if (got == 0) {
                return err_set(err, ERR_DATA, "%s became shorter while in use", d->bin_path);
            }
            have += (size_t)got;
        }
        for (size_t i = 0; i < want / d->token_bytes; i++, done++) {
            int64_t token = token_at(d->type, chunk + i * d->token_bytes);
            if (token < 0 || token >= (int64_t)vocab) {
                return err_set(err, ERR_DATA,
                               "%s: token %" PRId64 " at position %" PRIu64
                               " is outside the model's vocabulary 0..%u",
                               d->bin_path, token, first + done, vocab - 1);
            }
            out[done] = (int32_t)token;
        }
    }
    return 0;
}
