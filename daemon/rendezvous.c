/* A room for each (job, epoch), a tree of cells by key in each room. A cell is made by whoever
 * comes first, the setter or the one who waits. */
#include "daemon/rendezvous.h"

#include <search.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "lib/mem.h"

struct waiter {
    uint64_t id;
    LIST_ENTRY(waiter) all;
};
struct cell {
    char *key; /* owned */
    bool set;
    void *value; /* owned */
    size_t len;
    LIST_HEAD(, waiter) waiters;
    LIST_ENTRY(cell) all;
};
struct room {
    uint64_t job, epoch;
    void *by_key; /* tsearch tree of struct cell */
    size_t bytes;
    LIST_HEAD(, cell) cells;
    LIST_ENTRY(room) all;
};
struct rendezvous {
    rendezvous_answer answer;
    void *world;
    void *by_epoch; /* tsearch tree of struct room */
    size_t bytes;
    LIST_HEAD(, room) rooms;
};

static int compare_rooms(const void *a, const void *b)
{
    const struct room *x = a, *y = b;
    if (x->job != y->job) {
        return x->job < y->job ? -1 : 1;
    }
    return x->epoch < y->epoch ? -1 : x->epoch > y->epoch;
}

static int compare_cells(const void *a, const void *b)
{
    return strcmp(((const struct cell *)a)->key, ((const struct cell *)b)->key);
}

static void keep(void *node)
{
    (void)node; /* the lists own what the trees point to */
}

struct rendezvous *rendezvous_create(rendezvous_answer answer, void *world)
{
    struct rendezvous *r = mem_alloc(sizeof *r);
    r->answer = answer;
    r->world = world;
    LIST_INIT(&r->rooms);
    return r;
}

static void answer_waiters(struct rendezvous *r, struct cell *e, int code)
{
    while (!LIST_EMPTY(&e->waiters)) {
        struct waiter *w = LIST_FIRST(&e->waiters);
        LIST_REMOVE(w, all);
        if (r->answer != NULL) {
            r->answer(r->world, w->id, code, e->value, e->len);
        }
        free(w);
    }
}

static void room_destroy(struct rendezvous *r, struct room *room)
{
    while (!LIST_EMPTY(&room->cells)) {
        struct cell *e = LIST_FIRST(&room->cells);
        LIST_REMOVE(e, all);
        answer_waiters(r, e, ERR_STALE);
        free(e->value);
        free(e->key);
        free(e);
    }
    tdestroy(room->by_key, keep);
    tdelete(room, &r->by_epoch, compare_rooms);
    LIST_REMOVE(room, all);
    r->bytes -= room->bytes;
    free(room);
}

void rendezvous_destroy(struct rendezvous *r)
{
    if (r == NULL) {
        return;
    }
    r->answer = NULL;
    while (!LIST_EMPTY(&r->rooms)) {
        room_destroy(r, LIST_FIRST(&r->rooms));
    }
    free(r);
}

static struct room *find_room(const struct rendezvous *r, uint64_t job, uint64_t epoch)
{
    struct room wanted = {.job = job, .epoch = epoch};
    struct room **found = tfind(&wanted, &r->by_epoch, compare_rooms);
    return found != NULL ? *found : NULL;
}

static struct cell *find_cell(const struct room *room, const char *key)
{
    struct cell wanted = {.key = (char *)key};
    struct cell **found = room != NULL ? tfind(&wanted, &room->by_key, compare_cells) : NULL;
    return found != NULL ? *found : NULL;
}

static struct room *make_room(struct rendezvous *r, uint64_t job, uint64_t epoch)
{
    struct room *room = find_room(r, job, epoch);
    if (room == NULL) {
        room = mem_alloc(sizeof *room);
        room->job = job;
        room->epoch = epoch;
        LIST_INIT(&room->cells);
        LIST_INSERT_HEAD(&r->rooms, room, all);
        tsearch(room, &r->by_epoch, compare_rooms);
    }
    return room;
}

/* The entry, made when it is not there, if a value of len bytes fits. */
static int make_cell(struct rendezvous *r, uint64_t job, uint64_t epoch, const char *key,
                     size_t len, struct room **room_out, struct cell **out, struct err *err)
{
    size_t key_len = strlen(key);
    if (key_len == 0 || key_len > RENDEZVOUS_KEY_MAX) {
        return err_set(err, ERR_INVALID, "a rendezvous key has 1 to %u bytes, not %zu",
                       RENDEZVOUS_KEY_MAX, key_len);
    }
    if (len > RENDEZVOUS_VALUE_MAX) {
        return err_set(err, ERR_TOO_LARGE,
                       "rendezvous value '%s' has %zu bytes, at most %u are allowed", key, len,
                       RENDEZVOUS_VALUE_MAX);
    }
    struct room *room = make_room(r, job, epoch);
    struct cell *e = find_cell(room, key);
    size_t more = (e == NULL ? sizeof *e + key_len : 0) + len;
    size_t less = e != NULL ? e->len : 0;
    if (room->bytes + more - less > RENDEZVOUS_EPOCH_MAX) {
        return err_set(err, ERR_TOO_LARGE,
                       "the rendezvous of job %llu epoch %llu is full (%u bytes)",
                       (unsigned long long)job, (unsigned long long)epoch, RENDEZVOUS_EPOCH_MAX);
    }
    if (e == NULL) {
        e = mem_alloc(sizeof *e);
        e->key = mem_strdup(key);
        LIST_INIT(&e->waiters);
        LIST_INSERT_HEAD(&room->cells, e, all);
        tsearch(e, &room->by_key, compare_cells);
        room->bytes += sizeof *e + key_len;
        r->bytes += sizeof *e + key_len;
    }
    *room_out = room;
    *out = e;
    return 0;
}

int rendezvous_set(struct rendezvous *r, uint64_t job, uint64_t epoch, const char *key,
                   const void *value, size_t len, struct err *err)
{
    struct room *room;
    struct cell *e;
    TRY(make_cell(r, job, epoch, key, len, &room, &e, err));
    room->bytes += len - e->len;
    r->bytes += len - e->len;
    free(e->value);
    e->value = mem_alloc(len);
    if (len > 0) {
        memcpy(e->value, value, len);
    }
    e->len = len;
    e->set = true;
    answer_waiters(r, e, 0);
    return 0;
}

const void *rendezvous_get(const struct rendezvous *r, uint64_t job, uint64_t epoch,
                           const char *key, size_t *len)
{
    const struct cell *e = find_cell(find_room(r, job, epoch), key);
    if (e == NULL || !e->set) {
        return NULL;
    }
    *len = e->len;
    return e->value;
}

int rendezvous_wait(struct rendezvous *r, uint64_t job, uint64_t epoch, const char *key,
                    uint64_t waiter, struct err *err)
{
    struct room *room;
    struct cell *e;
    TRY(make_cell(r, job, epoch, key, 0, &room, &e, err));
    struct waiter *w = mem_alloc(sizeof *w);
    w->id = waiter;
    LIST_INSERT_HEAD(&e->waiters, w, all);
    return 0;
}

void rendezvous_forget(struct rendezvous *r, uint64_t job, uint64_t epoch, const char *key,
                       uint64_t waiter)
{
    struct cell *e = find_cell(find_room(r, job, epoch), key);
    if (e == NULL) {
        return;
    }
    struct waiter *w;
    LIST_FOREACH(w, &e->waiters, all)
    {
        if (w->id == waiter) {
            LIST_REMOVE(w, all);
            free(w);
            return;
        }
    }
}

void rendezvous_void(struct rendezvous *r, uint64_t job, uint64_t epoch)
{
    struct room *room = LIST_FIRST(&r->rooms);
    while (room != NULL) {
        struct room *next = LIST_NEXT(room, all);
        if (room->job == job && room->epoch <= epoch) {
            room_destroy(r, room);
        }
        room = next;
    }
}

size_t rendezvous_bytes(const struct rendezvous *r)
{
    return r->bytes;
}
