#include "trainer/ckpt_save.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

#include "lib/buf.h"
#include "lib/clock.h"
#include "lib/file.h"
#include "lib/mem.h"
#include "trainer/safetensors.h"

struct ckpt_saver {
    const struct op_table *op;
    char *dir;
    uint32_t rank, world;
    void (*durable)(void *ctx, const struct ckpt_shard *shard);
    void *ctx;

    struct ckpt_tensor *owned; /* the ones this rank writes */
    size_t owned_count;
    float *copy; /* their values at the step of the save in flight */
    size_t copy_bytes;
    struct ckpt_facts facts;
    int64_t stall_ms;

    pthread_t thread;
    bool in_flight;
    atomic_bool failed;
    struct err err; /* of the thread; read after it was joined */
};

struct ckpt_saver *ckpt_saver_create(const struct ckpt_tensors *tensors, const struct op_table *op,
                                     const char *dir, uint32_t rank, uint32_t world,
                                     void (*durable)(void *ctx, const struct ckpt_shard *shard),
                                     void *ctx)
{
    struct ckpt_saver *s = mem_alloc(sizeof *s);
    *s = (struct ckpt_saver){.op = op,
                             .dir = mem_strdup(dir),
                             .rank = rank,
                             .world = world,
                             .durable = durable,
                             .ctx = ctx};
    s->owned = mem_alloc_array(tensors->count, sizeof *s->owned);
    for (size_t i = 0; i < tensors->count; i++) {
        if (tensors->item[i].owned) {
            s->owned[s->owned_count++] = tensors->item[i];
            s->copy_bytes += tensors->item[i].count * sizeof(float);
        }
    }
    s->copy = mem_alloc(s->copy_bytes);
    return s;
}

/* ---- the writing thread */

struct writer {
    int fd;
    XXH3_state_t *xxh3;
    EVP_MD_CTX *sha256;
    uint64_t bytes;
};

#define CHUNK_BYTES ((size_t)4 << 20)

static int write_hashed(struct writer *w, const void *data, size_t len, struct err *err)
{
    const uint8_t *p = data;
    while (len > 0) {
        size_t n = len < CHUNK_BYTES ? len : CHUNK_BYTES;
        XXH3_128bits_update(w->xxh3, p, n);
        if (EVP_DigestUpdate(w->sha256, p, n) != 1) {
            return err_set(err, ERR_FAILED, "SHA-256 failed in libcrypto");
        }
        TRY(file_write_all(w->fd, p, n, err));
        w->bytes += n;
        p += n;
        len -= n;
    }
    return 0;
}

static void hex(const uint8_t *bytes, size_t n, char *text)
{
    for (size_t i = 0; i < n; i++) {
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    }
}

static int write_content(struct ckpt_saver *s, struct writer *w, const struct buf *header,
                         struct ckpt_shard *shard, struct err *err)
{
    /* Taking the space first makes a full disk fail before the work; file systems without the call
     * are fine. */
    if (fallocate(w->fd, 0, 0, (off_t)(header->len + s->copy_bytes)) != 0 && errno != EOPNOTSUPP &&
        errno != ENOSYS) {
        return err_set_errno(err, "cannot reserve %zu bytes", header->len + s->copy_bytes);
    }
    XXH3_128bits_reset(w->xxh3);
    if (EVP_DigestInit_ex(w->sha256, EVP_sha256(), NULL) != 1) {
        return err_set(err, ERR_FAILED, "SHA-256 is not available in libcrypto");
    }
    TRY(write_hashed(w, header->data, header->len, err));
    TRY(write_hashed(w, s->copy, s->copy_bytes, err));
    if (fsync(w->fd) != 0) {
        return err_set_errno(err, "cannot fsync");
    }
    XXH128_canonical_t xxh3;
    XXH128_canonicalFromHash(&xxh3, XXH3_128bits_digest(w->xxh3));
    hex(xxh3.digest, sizeof xxh3.digest, shard->xxh3);
    uint8_t sha256[EVP_MAX_MD_SIZE];
    EVP_DigestFinal_ex(w->sha256, sha256, NULL);
    hex(sha256, 32, shard->sha256);
    shard->bytes = w->bytes;
    return 0;
}

static void build_header(const struct ckpt_saver *s, const char *layout, struct buf *header)
{
    struct safetensors_item *items = mem_alloc_array(s->owned_count, sizeof *items);
    for (size_t i = 0; i < s->owned_count; i++) {
        const struct ckpt_tensor *t = &s->owned[i];
        items[i] = (struct safetensors_item){t->name, t->rows, t->cols, t->is_vector};
    }
    const struct safetensors_metadata metadata[] = {{"format", "dstrain"}, {"layout", layout}};
    safetensors_write_header(header, items, s->owned_count, metadata, 2);
    free(items);
}

static int write_shard(struct ckpt_saver *s, struct ckpt_shard *shard, struct err *err)
{
    char folder[PATH_MAX];
    char path[PATH_MAX + 80];
    char tmp[PATH_MAX + 88];
    snprintf(shard->file, sizeof shard->file, "shard-%05u-of-%05u.safetensors", s->rank, s->world);
    if (snprintf(folder, sizeof folder, "%s/step-%010llu", s->dir,
                 (unsigned long long)shard->step) >= (int)sizeof folder) {
        return err_set(err, ERR_CONFIG, "path too long: %s", s->dir);
    }
    snprintf(path, sizeof path, "%s/%s", folder, shard->file);
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    TRY(file_mkdirs(folder, 0777, err));
    struct writer w = {.fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)};
    if (w.fd < 0) {
        return err_set_errno(err, "cannot create %s", tmp);
    }
    w.xxh3 = XXH3_createState();
    w.sha256 = EVP_MD_CTX_new();
    assert(w.xxh3 != NULL && w.sha256 != NULL);
    struct buf header = {0};
    build_header(s, shard->layout, &header);
    int rc = write_content(s, &w, &header, shard, err);
    buf_fini(&header);
    XXH3_freeState(w.xxh3);
    EVP_MD_CTX_free(w.sha256);
    if (close(w.fd) != 0 && rc == 0) {
        rc = err_set_errno(err, "cannot close");
    }
    if (rc == 0 && rename(tmp, path) != 0) {
        rc = err_set_errno(err, "cannot rename to %s", shard->file);
    }
    if (rc != 0) {
        unlink(tmp);
        return err_wrap(err, "%s", tmp);
    }
    return file_fsync_dir(folder, err);
}

static void *save_main(void *arg)
{
    struct ckpt_saver *s = arg;
    int64_t start = clock_boot_ms();
    char *layout = ckpt_facts_encode(&s->facts);
    struct ckpt_shard shard = {.step = s->facts.step,
                               .rank = s->rank,
                               .world = s->world,
                               .stall_ms = s->stall_ms,
                               .layout = layout};
    struct err why = {0};
    int rc = write_shard(s, &shard, &why);
    if (rc == 0) {
        shard.write_ms = clock_boot_ms() - start;
        s->durable(s->ctx, &shard);
    } else {
        err_set(&s->err, rc == ERR_NOSPACE || rc == ERR_DENIED ? rc : ERR_IO,
                "cannot save the checkpoint of step %llu: %s (%s; the last committed checkpoint is "
                "untouched)",
                (unsigned long long)shard.step, why.text,
                rc == ERR_NOSPACE ? "free some space, or set checkpoint.dir to a larger disk"
                                  : "see to the storage");
        atomic_store(&s->failed, true);
    }
    free(layout);
    return NULL;
}

/* ---- the step loop's side */

int ckpt_saver_wait(struct ckpt_saver *s, struct err *err)
{
    if (s->in_flight) {
        pthread_join(s->thread, NULL);
        s->in_flight = false;
    }
    return s->err.code == 0 ? 0 : err_set(err, s->err.code, "%s", s->err.text);
}

bool ckpt_saver_failed(struct ckpt_saver *s)
{
    return atomic_load(&s->failed);
}

int ckpt_save(struct ckpt_saver *s, const struct ckpt_facts *facts, int64_t *stall_ms,
              struct err *err)
{
    int64_t start = clock_boot_ms();
    TRY(ckpt_saver_wait(s, err));
    float *to = s->copy;
    for (size_t i = 0; i < s->owned_count; i++) {
        const struct ckpt_tensor *t = &s->owned[i];
        if (t->host) {
            for (size_t k = 0; k < t->count; k++) {
                to[k] = t->data[k];
            }
        } else {
            s->op->copy_to_host(to, t->data, t->count * sizeof *to);
        }
        to += t->count;
    }
    s->facts = *facts;
    s->stall_ms = clock_boot_ms() - start;
    *stall_ms = s->stall_ms;
    int rc = pthread_create(&s->thread, NULL, save_main, s);
    if (rc != 0) {
        errno = rc;
        return err_set_errno(err, "cannot start the thread that writes checkpoints");
    }
    s->in_flight = true;
    return 0;
}

void ckpt_saver_destroy(struct ckpt_saver *s)
{
    if (s == NULL) {
        return;
    }
    ckpt_saver_wait(s, NULL);
    free(s->owned);
    free(s->copy);
    free(s->dir);
    free(s);
}
