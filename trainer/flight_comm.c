#include "trainer/flight_comm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "lib/mem.h"
#include "proto/flight.h"

struct flight {
    struct flight_file *file; /* mapped */
};

struct recorded {
    struct comm base;
    struct comm *inner; /* owned */
    struct flight *flight;
    uint16_t group;
    atomic_uint_least64_t calls;
};

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static struct flight_entry *begin(struct comm *c, enum flight_op op, uint64_t bytes, uint32_t peer)
{
    struct recorded *r = (struct recorded *)c;
    uint64_t number = __atomic_fetch_add(&r->flight->file->next, 1, __ATOMIC_RELAXED);
    struct flight_entry *e = &r->flight->file->entry[number % FLIGHT_ENTRIES];
    e->number = 0; /* a reader that comes now sees no half entry */
    atomic_thread_fence(memory_order_release);
    e->call = atomic_fetch_add(&r->calls, 1) + 1;
    e->bytes = bytes;
    e->begin_ns = now_ns();
    e->end_ns = 0;
    e->op = (uint16_t)op;
    e->group = r->group;
    e->peer = (uint16_t)peer;
    e->failed = 0;
    atomic_thread_fence(memory_order_release);
    e->number = number;
    return e;
}

static int end(struct flight_entry *e, int rc)
{
    e->failed = rc != 0;
    e->end_ns = now_ns();
    return rc;
}

#define INNER(c)         (((struct recorded *)(c))->inner)
#define CALL(op, c, ...) INNER(c)->ops->op(INNER(c), __VA_ARGS__)

static int all_reduce_f32(struct comm *c, float *data, size_t count, struct err *err)
{
    struct flight_entry *e = begin(c, FLIGHT_ALL_REDUCE_F32, count * sizeof *data, 0);
    return end(e, CALL(all_reduce_sum_f32, c, data, count, err));
}

static int all_reduce_f64(struct comm *c, double *data, size_t count, struct err *err)
{
    struct flight_entry *e = begin(c, FLIGHT_ALL_REDUCE_F64, count * sizeof *data, 0);
    return end(e, CALL(all_reduce_sum_f64, c, data, count, err));
}

static int all_reduce_u64(struct comm *c, uint64_t *data, size_t count, struct err *err)
{
    struct flight_entry *e = begin(c, FLIGHT_ALL_REDUCE_U64, count * sizeof *data, 0);
    return end(e, CALL(all_reduce_sum_u64, c, data, count, err));
}

static int reduce_scatter(struct comm *c, float *data, const size_t *first, struct err *err)
{
    struct flight_entry *e = begin(c, FLIGHT_REDUCE_SCATTER, first[c->size] * sizeof *data, 0);
    return end(e, CALL(reduce_scatter_sum_f32, c, data, first, err));
}

static int all_gather(struct comm *c, const void *in, void *out, size_t bytes, struct err *err)
{
    struct flight_entry *e = begin(c, FLIGHT_ALL_GATHER, bytes, 0);
    return end(e, CALL(all_gather, c, in, out, bytes, err));
}

static int all_to_all_v(struct comm *c, const void *in, const size_t *send_bytes, void *out,
                        const size_t *recv_bytes, struct err *err)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < c->size; i++) {
        bytes += send_bytes[i];
    }
    struct flight_entry *e = begin(c, FLIGHT_ALL_TO_ALL, bytes, 0);
    return end(e, CALL(all_to_all_v, c, in, send_bytes, out, recv_bytes, err));
}

static int broadcast(struct comm *c, void *data, size_t bytes, uint32_t root, struct err *err)
{
    struct flight_entry *e = begin(c, FLIGHT_BROADCAST, bytes, root);
    return end(e, CALL(broadcast, c, data, bytes, root, err));
}

static int barrier(struct comm *c, struct err *err)
{
    struct flight_entry *e = begin(c, FLIGHT_BARRIER, 0, 0);
    return end(e, INNER(c)->ops->barrier(INNER(c), err));
}

static int send_to(struct comm *c, uint32_t to, uint32_t channel, const void *data, size_t bytes,
                   struct err *err)
{
    struct flight_entry *e = begin(c, FLIGHT_SEND, bytes, to);
    return end(e, CALL(send, c, to, channel, data, bytes, err));
}

static int recv_from(struct comm *c, uint32_t from, uint32_t channel, void *data, size_t bytes,
                     struct err *err)
{
    struct flight_entry *e = begin(c, FLIGHT_RECV, bytes, from);
    return end(e, CALL(recv, c, from, channel, data, bytes, err));
}

static void destroy(struct comm *c)
{
    comm_destroy(INNER(c));
    free(c);
}

static const struct comm_ops recorded_ops = {
    .name = "recorded",
    .all_reduce_sum_f32 = all_reduce_f32,
    .all_reduce_sum_f64 = all_reduce_f64,
    .all_reduce_sum_u64 = all_reduce_u64,
    .reduce_scatter_sum_f32 = reduce_scatter,
    .all_gather = all_gather,
    .all_to_all_v = all_to_all_v,
    .broadcast = broadcast,
    .barrier = barrier,
    .send = send_to,
    .recv = recv_from,
    .destroy = destroy,
};

struct comm *flight_comm(struct flight *f, struct comm *inner, const char *name)
{
    if (f == NULL || inner->size == 1 || f->file->group_count == FLIGHT_GROUPS_MAX) {
        return inner;
    }
    struct recorded *r = mem_alloc(sizeof *r);
    r->base = (struct comm){&recorded_ops, inner->rank, inner->size};
    r->inner = inner;
    r->flight = f;
    r->group = (uint16_t)f->file->group_count;
    struct flight_group *group = &f->file->group[r->group];
    snprintf(group->name, sizeof group->name, "%s", name);
    group->rank = inner->rank;
    group->size = inner->size;
    f->file->group_count++;
    return &r->base;
}

/* ---- the file */

int flight_open(struct flight **out, const char *dir, uint32_t rank, uint32_t world,
                struct err *err)
{
    char *path = flight_path(dir, rank);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    void *map = MAP_FAILED;
    /* Room now: a write to a mapping that finds the disk full would be the end of the rank. */
    int rc = fd < 0 ? err_set_errno(err, "cannot make %s", path) : 0;
    if (rc == 0 && (errno = posix_fallocate(fd, 0, sizeof(struct flight_file))) != 0) {
        rc = err_set_errno(err, "no room for %s", path);
    }
    if (rc == 0) {
        map = mmap(NULL, sizeof(struct flight_file), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        rc = map == MAP_FAILED ? err_set_errno(err, "cannot map %s", path) : 0;
    }
    if (fd >= 0) {
        close(fd);
    }
    free(path);
    if (rc != 0) {
        return rc;
    }
    struct flight *f = mem_alloc(sizeof *f);
    f->file = map;
    memcpy(f->file->magic, FLIGHT_MAGIC, sizeof f->file->magic);
    f->file->version = FLIGHT_VERSION;
    f->file->entries = FLIGHT_ENTRIES;
    f->file->rank = rank;
    f->file->world = world;
    f->file->next = 1;
    *out = f;
    return 0;
}

void flight_close(struct flight *f)
{
    if (f != NULL) {
        munmap(f->file, sizeof *f->file);
        free(f);
    }
}
