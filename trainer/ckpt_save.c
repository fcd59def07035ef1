#include "trainer/ckpt_save.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/clock.h"
#include "lib/file.h"
#include "lib/mem.h"
#include "trainer/reshard.h"
#include "trainer/safetensors.h"
#include "trainer/shard_file.h"

/* Floats on their way from a back end to a file. */
#define BAND ((size_t)1 << 20)

struct ckpt_saver {
    const struct op_table *op;
    char *dir;
    uint32_t rank, world, threads;
    void (*durable)(void *ctx, const struct ckpt_shard *shard);
    void *ctx;

    struct ckpt_tensor *owned; /* the ones this rank writes */
    size_t owned_count;
    float *copy; /* their values at the step of the save in flight; a band of them in the last */
    size_t copy_bytes;
    bool last; /* of the save in flight: no copy */
    uint64_t step;
    char *layout; /* owned; the facts of that step */
    _Atomic int64_t stall_ms;

    pthread_t thread;
    bool in_flight;
    pthread_mutex_t lock;
    pthread_cond_t copied_now;
    bool copied; /* the thread is through with the tensors; under lock */
    atomic_bool failed;
    struct err err; /* of the thread; read after it was joined */
};

struct ckpt_saver *ckpt_saver_create(const struct ckpt_tensors *tensors, const struct op_table *op,
                                     const char *dir, uint32_t rank, uint32_t world,
                                     uint32_t threads,
                                     void (*durable)(void *ctx, const struct ckpt_shard *shard),
                                     void *ctx)
{
    struct ckpt_saver *s = mem_alloc(sizeof *s);
    *s = (struct ckpt_saver){.op = op,
                             .threads = threads,
                             .dir = mem_strdup(dir),
                             .rank = rank,
                             .world = world,
                             .durable = durable,
                             .ctx = ctx};
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->copied_now, NULL);
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

size_t ckpt_saver_bytes(const struct ckpt_saver *s)
{
    return s->copy_bytes;
}

/* ---- the writing thread */

static void build_header(const struct ckpt_saver *s, struct buf *header)
{
    struct safetensors_item *items = mem_alloc_array(s->owned_count, sizeof *items);
    char(*names)[RESHARD_NAME_BYTES] = mem_alloc_array(s->owned_count, sizeof *names);
    char threads[16];
    snprintf(threads, sizeof threads, "%u", s->threads);
    for (size_t i = 0; i < s->owned_count; i++) {
        const struct ckpt_tensor *t = &s->owned[i];
        bool whole = ckpt_tensor_is_whole(t);
        reshard_name(names[i], t->name, t->first, t->count, whole);
        items[i] = whole ? (struct safetensors_item){names[i], t->rows, t->cols, t->is_vector, NULL}
                         : (struct safetensors_item){names[i], (uint32_t)t->count, 1, true, NULL};
    }
    const struct safetensors_metadata metadata[] = {
        {"format", "dstrain"}, {"layout", s->layout}, {CKPT_THREADS_KEY, threads}};
    safetensors_write_header(header, items, s->owned_count, metadata, 3);
    free(items);
    free(names);
}

static void read_tensor(const struct ckpt_saver *s, const struct ckpt_tensor *t, size_t first,
                        size_t count, float *to)
{
    if (t->host) {
        memcpy(to, t->data + first, count * sizeof *to);
    } else {
        s->op->copy_to_host(to, t->data + first, count * sizeof *to);
    }
}

/* From where they are, a band at a time. */
static int write_tensors(struct ckpt_saver *s, struct shard_file *file, struct err *err)
{
    for (size_t i = 0; i < s->owned_count; i++) {
        const struct ckpt_tensor *t = &s->owned[i];
        for (size_t first = 0; first < t->count; first += BAND) {
            size_t count = t->count - first < BAND ? t->count - first : BAND;
            read_tensor(s, t, first, count, s->copy);
            TRY(shard_file_write(file, s->copy, count * sizeof *s->copy, err));
        }
    }
    return 0;
}

static int write_file(struct ckpt_saver *s, const char *path, struct ckpt_shard *shard,
                      struct err *err)
{
    struct shard_file file = {0};
    struct buf header = {0};
    int rc;
    build_header(s, &header);
    TRY_GOTO(shard_file_create(&file, path, header.len + s->copy_bytes, err), out);
    TRY_GOTO(shard_file_write(&file, header.data, header.len, err), out);
    TRY_GOTO(s->last ? write_tensors(s, &file, err)
                     : shard_file_write(&file, s->copy, s->copy_bytes, err),
             out);
    rc = shard_file_commit(&file, shard->xxh3, shard->sha256, err);
    shard->bytes = file.bytes;
out:
    shard_file_close(&file);
    buf_fini(&header);
    return rc;
}

static int write_shard(struct ckpt_saver *s, struct ckpt_shard *shard, struct err *err)
{
    char folder[PATH_MAX];
    char path[PATH_MAX + 80];
    snprintf(shard->file, sizeof shard->file, CKPT_SHARD_NAME, s->rank, s->world);
    if (snprintf(folder, sizeof folder, "%s/step-%010llu", s->dir,
                 (unsigned long long)shard->step) >= (int)sizeof folder) {
        return err_set(err, ERR_CONFIG, "path too long: %s", s->dir);
    }
    snprintf(path, sizeof path, "%s/%s", folder, shard->file);
    TRY(file_mkdirs(folder, 0777, err));
    TRY(write_file(s, path, shard, err));
    return file_fsync_dir(folder, err);
}

/* The tensors of one kind: those in the back end's memory, or those in ours, which are small and
 * may change at once. */
static void copy_tensors(struct ckpt_saver *s, bool host)
{
    float *to = s->copy;
    for (size_t i = 0; i < s->owned_count; i++) {
        const struct ckpt_tensor *t = &s->owned[i];
        if (t->host == host) {
            read_tensor(s, t, 0, t->count, to);
        }
        to += t->count;
    }
}

static void tell_copied(struct ckpt_saver *s)
{
    pthread_mutex_lock(&s->lock);
    s->copied = true;
    pthread_cond_signal(&s->copied_now);
    pthread_mutex_unlock(&s->lock);
}

static void *save_main(void *arg)
{
    struct ckpt_saver *s = arg;
    int64_t start = clock_boot_ms();
    struct ckpt_shard shard = {
        .step = s->step, .rank = s->rank, .world = s->world, .layout = s->layout};
    if (!s->last) {
        copy_tensors(s, false);
        tell_copied(s);
    }
    struct err why = {0};
    int rc = write_shard(s, &shard, &why);
    if (s->last) {
        tell_copied(s);
    }
    if (rc == 0) {
        shard.write_ms = clock_boot_ms() - start;
        shard.stall_ms = atomic_load(&s->stall_ms);
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

int64_t ckpt_saver_copied(struct ckpt_saver *s)
{
    int64_t start = clock_boot_ms();
    if (!s->in_flight) {
        return 0;
    }
    pthread_mutex_lock(&s->lock);
    while (!s->copied) {
        pthread_cond_wait(&s->copied_now, &s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    int64_t waited = clock_boot_ms() - start;
    atomic_fetch_add(&s->stall_ms, waited);
    return waited;
}

bool ckpt_saver_failed(struct ckpt_saver *s)
{
    return atomic_load(&s->failed);
}

int ckpt_save(struct ckpt_saver *s, const struct ckpt_facts *facts, bool last, int64_t *stall_ms,
              struct err *err)
{
    int64_t start = clock_boot_ms();
    TRY(ckpt_saver_wait(s, err));
    s->last = last;
    if (!last) {
        copy_tensors(s, true);
    }
    s->copied = false;
    s->step = facts->step;
    free(s->layout);
    s->layout = ckpt_facts_encode(facts);
    *stall_ms = clock_boot_ms() - start;
    atomic_store(&s->stall_ms, *stall_ms);
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
    pthread_cond_destroy(&s->copied_now);
    pthread_mutex_destroy(&s->lock);
    free(s->owned);
    free(s->copy);
    free(s->layout);
    free(s->dir);
    free(s);
}
