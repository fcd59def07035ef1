#include "trainer/overlap.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

struct overlap {
    bool threaded;
    pthread_t thread;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    overlap_fn *fn; /* to be done or being done */
    void *arg;
    bool stop;
    int rc;
    struct err err;
};

static void *thread_main(void *arg)
{
    struct overlap *o = arg;
    pthread_mutex_lock(&o->lock);
    for (;;) {
        while (o->fn == NULL && !o->stop) {
            pthread_cond_wait(&o->changed, &o->lock);
        }
        if (o->fn == NULL) {
            break;
        }
        pthread_mutex_unlock(&o->lock);
        int rc = o->fn(o->arg, &o->err);
        pthread_mutex_lock(&o->lock);
        o->rc = rc;
        o->fn = NULL;
        pthread_cond_broadcast(&o->changed);
    }
    pthread_mutex_unlock(&o->lock);
    return NULL;
}

struct overlap *overlap_create(void)
{
    const char *wanted = getenv("DS_OVERLAP");
    struct overlap *o = mem_alloc(sizeof *o);
    *o = (struct overlap){.threaded = wanted == NULL || strcmp(wanted, "0") != 0};
    pthread_mutex_init(&o->lock, NULL);
    pthread_cond_init(&o->changed, NULL);
    if (o->threaded) {
        int rc = pthread_create(&o->thread, NULL, thread_main, o);
        assert(rc == 0);
    }
    return o;
}

void overlap_destroy(struct overlap *o)
{
    if (o == NULL) {
        return;
    }
    if (o->threaded) {
        pthread_mutex_lock(&o->lock);
        o->stop = true;
        pthread_cond_broadcast(&o->changed);
        pthread_mutex_unlock(&o->lock);
        pthread_join(o->thread, NULL);
    }
    pthread_cond_destroy(&o->changed);
    pthread_mutex_destroy(&o->lock);
    free(o);
}

bool overlap_is_threaded(const struct overlap *o)
{
    return o->threaded;
}

void overlap_start(struct overlap *o, overlap_fn *fn, void *arg)
{
    assert(o->fn == NULL && o->rc == 0);
    o->err = (struct err){0};
    if (!o->threaded) {
        o->rc = fn(arg, &o->err);
        return;
    }
    pthread_mutex_lock(&o->lock);
    o->fn = fn;
    o->arg = arg;
    pthread_cond_broadcast(&o->changed);
    pthread_mutex_unlock(&o->lock);
}

int overlap_wait(struct overlap *o, struct err *err)
{
    pthread_mutex_lock(&o->lock);
    while (o->fn != NULL) {
        pthread_cond_wait(&o->changed, &o->lock);
    }
    int rc = o->rc;
    o->rc = 0;
    pthread_mutex_unlock(&o->lock);
    return rc == 0 ? 0 : err_set(err, rc, "%s", o->err.text);
}
