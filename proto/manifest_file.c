#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "lib/file.h"
#include "lib/mem.h"
#include "proto/manifest.h"

#define MANIFEST_BYTES_MAX (64u * 1024u * 1024u)
#define READ_BYTES         (1024u * 1024u)

static int path_of(char path[PATH_MAX], const char *dir, const char *file, struct err *err)
{
    if (snprintf(path, PATH_MAX, "%s/%s", dir, file) >= PATH_MAX) {
        return err_set(err, ERR_INVALID, "path too long: %s/%s", dir, file);
    }
    return 0;
}

int manifest_read(struct manifest *m, const char *dir, struct err *err)
{
    char path[PATH_MAX];
    struct buf text = {0};
    *m = (struct manifest){0};
    TRY(path_of(path, dir, MANIFEST_FILE, err));
    int rc = file_read(path, MANIFEST_BYTES_MAX, &text, err);
    if (rc == 0) {
        rc = manifest_parse(m, buf_cstr(&text), text.len, path, err);
    }
    buf_fini(&text);
    return rc;
}

static int make_durable(const char *path, const char *dir, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return err_set_errno(err, "cannot open %s", path);
    }
    int rc = fsync(fd) == 0 ? 0 : err_set_errno(err, "cannot fsync %s", path);
    close(fd);
    return rc != 0 ? rc : file_fsync_dir(dir, err);
}

int manifest_publish(const char *dir, const char *text, size_t len, struct err *err)
{
    char path[PATH_MAX];
    struct buf old = {0};
    struct err why;
    TRY(path_of(path, dir, MANIFEST_FILE, err));
    int rc = file_read(path, MANIFEST_BYTES_MAX, &old, &why);
    bool same = rc == 0 && old.len == len && memcmp(buf_cstr(&old), text, len) == 0;
    buf_fini(&old);
    if (rc == ERR_NOT_FOUND) {
        return file_write_durable(path, text, len, 0644, err);
    }
    if (rc != 0 && rc != ERR_TOO_LARGE) {
        return err_set(err, rc, "%s", why.text);
    }
    if (!same) {
        return err_set(err, ERR_CONFLICT,
                       "%s is there already and says something else (two attempts in one folder?)",
                       path);
    }
    /* whoever wrote it may have died before it was durable */
    return make_durable(path, dir, err);
}

static void to_hex(const unsigned char *bytes, size_t count, char *text)
{
    for (size_t i = 0; i < count; i++) {
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    }
}

/* sha256 may be NULL: not computed. */
static int digest_fd(int fd, const char *path, uint64_t *bytes, char xxh3[33], char *sha256,
                     struct err *err)
{
    int rc = 0;
    ssize_t got;
    XXH3_state_t *fast = XXH3_createState();
    EVP_MD_CTX *strong = EVP_MD_CTX_new();
    unsigned char *block = mem_alloc(READ_BYTES);
    if (fast == NULL || strong == NULL || EVP_DigestInit_ex(strong, EVP_sha256(), NULL) != 1) {
        rc = err_set(err, ERR_NOMEM, "%s: no memory for digests", path);
        goto out;
    }
    XXH3_128bits_reset(fast);
    *bytes = 0;
    while ((got = read(fd, block, READ_BYTES)) != 0) {
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            rc = err_set_errno(err, "cannot read %s", path);
            goto out;
        }
        XXH3_128bits_update(fast, block, (size_t)got);
        if (sha256 != NULL) {
            EVP_DigestUpdate(strong, block, (size_t)got);
        }
        *bytes += (uint64_t)got;
    }
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(fast));
    to_hex(canonical.digest, sizeof canonical.digest, xxh3);
    if (sha256 != NULL) {
        unsigned char digest[32];
        EVP_DigestFinal_ex(strong, digest, NULL);
        to_hex(digest, sizeof digest, sha256);
    }
out:
    free(block);
    EVP_MD_CTX_free(strong);
    XXH3_freeState(fast);
    return rc;
}

/* Opens a regular file; a pipe or a device would block or never end. */
static int open_regular(const char *path, int *fd, uint64_t *bytes, struct err *err)
{
    struct stat st;
    *fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (*fd < 0) {
        return err_set_errno(err, "cannot open %s", path);
    }
    if (fstat(*fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(*fd);
        return err_set(err, ERR_CORRUPT, "%s is not a regular file", path);
    }
    *bytes = (uint64_t)st.st_size;
    return 0;
}

int manifest_digest_file(const char *path, uint64_t *bytes, char xxh3[33], char sha256[65],
                         struct err *err)
{
    int fd;
    TRY(open_regular(path, &fd, bytes, err));
    int rc = digest_fd(fd, path, bytes, xxh3, sha256, err);
    close(fd);
    return rc;
}

static int verify_shard(const struct manifest_shard *s, const char *dir, int strict,
                        struct err *err)
{
    char path[PATH_MAX];
    char xxh3[33];
    char sha256[65];
    int fd;
    uint64_t bytes;
    TRY(path_of(path, dir, s->file, err));
    int rc = open_regular(path, &fd, &bytes, err);
    if (rc == ERR_NOT_FOUND) {
        return err_set(err, ERR_CORRUPT, "%s (rank %" PRIu32 ") is missing", path, s->rank);
    }
    TRY(rc);
    if (bytes == s->bytes) { /* no need to read the whole of a file that is too short */
        rc = digest_fd(fd, path, &bytes, xxh3, strict ? sha256 : NULL, err);
    }
    close(fd);
    TRY(rc);
    if (bytes != s->bytes) {
        return err_set(err, ERR_CORRUPT,
                       "%s (rank %" PRIu32 ") has %" PRIu64 " bytes, the manifest says %" PRIu64,
                       path, s->rank, bytes, s->bytes);
    }
    if (strcmp(xxh3, s->xxh3) != 0 || (strict && strcmp(sha256, s->sha256) != 0)) {
        return err_set(err, ERR_CORRUPT,
                       "%s (rank %" PRIu32
                       ") has another %s than the manifest says: its bytes changed",
                       path, s->rank, strcmp(xxh3, s->xxh3) != 0 ? "xxh3" : "sha256");
    }
    return 0;
}

int manifest_verify(const struct manifest *m, const char *dir, int strict, struct err *err)
{
    for (uint32_t i = 0; i < m->world_size; i++) {
        TRY(verify_shard(&m->shards[i], dir, strict, err));
    }
    return 0;
}
