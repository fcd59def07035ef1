/* A ring of batches. The caller fills the one at `filled`, threads do those up to it in turn, and
 * the caller takes the one at `taken`. */
#include "trainer/pack_workers.h"

#include <pthread.h>
#include <stdlib.h>

#include "lib/mem.h"

struct slot {
    struct pack_batch batch;
    bool done;
};

struct pack_workers {
    const struct tokenizer *tokenizer;
    uint32_t eod;
    bool frame;
    pthread_t *threads; /* owned */
    unsigned thread_count;
    struct slot *slots; /* owned */
    uint64_t slot_count;
    pthread_mutex_t lock; /* of the rest */
    pthread_cond_t given, finished;
    uint64_t filled, started, taken; /* numbers of batches; modulo slot_count the slot */
    bool taken_open;                 /* the caller still reads what it took last */
    bool stop;
};

static struct slot *slot_at(struct pack_workers *w, uint64_t number)
{
    return &w->slots[number % w->slot_count];
}

/* A text whose frame ends with the end-of-document token needs no other. */
static void end_document(struct token_ids *ids, size_t start, uint32_t eod)
{
    if (ids->count == start || ids->ids[ids->count - 1] != eod) {
        token_ids_add(ids, eod);
    }
}

static void encode_batch(const struct pack_workers *w, struct tokenizer_encoder *e,
                         struct pack_batch *b)
{
    size_t start = 0;
    for (size_t i = 0; i < b->count; i++) {
        struct pack_document *d = &b->documents[i];
        size_t ids_start = b->ids.count;
        b->rc = tokenizer_encode(e, b->text.data + start, d->text_end - start, w->frame, &b->ids,
                                 &b->err);
        if (b->rc == 0) {
            end_document(&b->ids, ids_start, w->eod);
            if (b->ids.count - ids_start > INT32_MAX) {
                b->rc = err_set(&b->err, ERR_DATA,
                                "a document has %zu tokens, the format allows %d (use "
                                "--document-bytes)",
                                b->ids.count - ids_start, INT32_MAX);
            }
        }
        if (b->rc != 0) {
            err_wrap(&b->err, "%s", d->path);
            return;
        }
        d->ids_end = b->ids.count;
        start = d->text_end;
    }
}

static void *work(void *ctx)
{
    struct pack_workers *w = ctx;
    struct tokenizer_encoder *e = tokenizer_encoder_create(w->tokenizer);
    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (!w->stop && w->started == w->filled) {
            pthread_cond_wait(&w->given, &w->lock);
        }
        if (w->stop) {
            break;
        }
        struct slot *s = slot_at(w, w->started++);
        pthread_mutex_unlock(&w->lock);
        encode_batch(w, e, &s->batch);
        pthread_mutex_lock(&w->lock);
        s->done = true;
        pthread_cond_signal(&w->finished);
    }
    pthread_mutex_unlock(&w->lock);
    tokenizer_encoder_destroy(e);
    return NULL;
}

int pack_workers_start(struct pack_workers **out, const struct tokenizer *t, uint32_t eod,
                       bool frame, unsigned threads, struct err *err)
{
    struct pack_workers *w = mem_alloc(sizeof *w);
    w->tokenizer = t;
    w->eod = eod;
    w->frame = frame;
    w->slot_count = 2 * (uint64_t)threads + 1;
    w->slots = mem_alloc_array(w->slot_count, sizeof *w->slots);
    w->threads = mem_alloc_array(threads, sizeof *w->threads);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->given, NULL);
    pthread_cond_init(&w->finished, NULL);
    for (unsigned i = 0; i < threads; i++) {
        w->thread_count += pthread_create(&w->threads[w->thread_count], NULL, work, w) == 0;
    }
    *out = w;
    return w->thread_count > 0 ? 0 : err_set(err, ERR_FAILED, "cannot start a thread");
}

void pack_workers_stop(struct pack_workers *w)
{
    if (w == NULL) {
        return;
    }
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_broadcast(&w->given);
    pthread_mutex_unlock(&w->lock);
    for (unsigned i = 0; i < w->thread_count; i++) {
        pthread_join(w->threads[i], NULL);
    }
    for (uint64_t i = 0; i < w->slot_count; i++) {
        buf_fini(&w->slots[i].batch.text);
        token_ids_fini(&w->slots[i].batch.ids);
        free(w->slots[i].batch.documents);
    }
    pthread_cond_destroy(&w->given);
    pthread_cond_destroy(&w->finished);
    pthread_mutex_destroy(&w->lock);
    free(w->slots);
    free(w->threads);
    free(w);
}

/* What was taken last becomes free. The numbers `filled` and `taken` are the caller's alone. */
static void release_taken(struct pack_workers *w)
{
    if (w->taken_open) {
        struct slot *s = slot_at(w, w->taken++);
        buf_reset(&s->batch.text);
        s->batch.count = 0;
        s->batch.ids.count = 0;
        s->done = false;
        w->taken_open = false;
    }
}

struct pack_batch *pack_workers_batch(struct pack_workers *w)
{
    release_taken(w);
    return w->filled - w->taken < w->slot_count ? &slot_at(w, w->filled)->batch : NULL;
}

void pack_workers_give(struct pack_workers *w)
{
    pthread_mutex_lock(&w->lock);
    w->filled++;
    pthread_cond_signal(&w->given);
    pthread_mutex_unlock(&w->lock);
}

struct pack_batch *pack_workers_take(struct pack_workers *w)
{
    release_taken(w);
    if (w->taken == w->filled) {
        return NULL;
    }
    struct slot *s = slot_at(w, w->taken);
    pthread_mutex_lock(&w->lock);
    while (!s->done) {
        pthread_cond_wait(&w->finished, &w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    w->taken_open = true;
    return &s->batch;
}
