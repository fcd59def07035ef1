#include "proto/flight.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/file.h"
#include "lib/mem.h"

static const char *const op_names[FLIGHT_OPS] = {
    [FLIGHT_ALL_REDUCE_F32] = "all_reduce_sum_f32",
    [FLIGHT_ALL_REDUCE_F64] = "all_reduce_sum_f64",
    [FLIGHT_ALL_REDUCE_U64] = "all_reduce_sum_u64",
    [FLIGHT_REDUCE_SCATTER] = "reduce_scatter_sum_f32",
    [FLIGHT_ALL_GATHER] = "all_gather",
    [FLIGHT_ALL_TO_ALL] = "all_to_all_v",
    [FLIGHT_BROADCAST] = "broadcast",
    [FLIGHT_BARRIER] = "barrier",
    [FLIGHT_SEND] = "send",
    [FLIGHT_RECV] = "recv",
};

const char *flight_op_name(unsigned op)
{
    return op < FLIGHT_OPS ? op_names[op] : "?";
}

char *flight_path(const char *dir, uint32_t rank)
{
    return mem_printf("%s/flight-%" PRIu32 ".bin", dir, rank);
}

/* ---- reading */

static bool is_whole(const struct buf *bytes)
{
    const struct flight_file *f = (const struct flight_file *)bytes->data;
    return bytes->len == sizeof *f && memcmp(f->magic, FLIGHT_MAGIC, sizeof f->magic) == 0 &&
           f->version == FLIGHT_VERSION && f->entries == FLIGHT_ENTRIES &&
           f->group_count <= FLIGHT_GROUPS_MAX;
}

int flight_read(struct flight_file **file, const char *path, struct err *err)
{
    struct buf bytes = {0};
    *file = NULL;
    TRY(file_read(path, sizeof **file, &bytes, err));
    if (!is_whole(&bytes)) {
        buf_fini(&bytes);
        return err_set(err, ERR_INVALID, "%s: not the flight recorder of a rank", path);
    }
    struct flight_file *f = mem_alloc(sizeof *f);
    memcpy(f, bytes.data, sizeof *f);
    buf_fini(&bytes);
    for (uint32_t i = 0; i < FLIGHT_GROUPS_MAX; i++) {
        f->group[i].name[sizeof f->group[i].name - 1] = 0;
    }
    for (uint32_t i = 0; i < FLIGHT_ENTRIES; i++) { /* a damaged one was never written */
        struct flight_entry *e = &f->entry[i];
        if (e->number % FLIGHT_ENTRIES != i || e->group >= f->group_count || e->op >= FLIGHT_OPS) {
            *e = (struct flight_entry){0};
        }
    }
    *file = f;
    return 0;
}

/* The newest entry of a group, or of all (group_count); NULL when there is none. */
static const struct flight_entry *newest(const struct flight_file *f, uint32_t group)
{
    const struct flight_entry *found = NULL;
    for (uint32_t i = 0; i < FLIGHT_ENTRIES; i++) {
        const struct flight_entry *e = &f->entry[i];
        if (e->number > 0 && (group == f->group_count || e->group == group) &&
            (found == NULL || e->number > found->number)) {
            found = e;
        }
    }
    return found;
}

static const struct flight_entry *call_of(const struct flight_file *f, uint32_t group,
                                          uint64_t call)
{
    for (uint32_t i = 0; i < FLIGHT_ENTRIES; i++) {
        const struct flight_entry *e = &f->entry[i];
        if (e->number > 0 && e->group == group && e->call == call) {
            return e;
        }
    }
    return NULL;
}

static bool is_message(const struct flight_entry *e)
{
    return e->op == FLIGHT_SEND || e->op == FLIGHT_RECV;
}

static void describe(const struct flight_file *f, const struct flight_entry *e, struct buf *out)
{
    buf_printf(out, "%s %" PRIu64 " of %s", flight_op_name(e->op), e->call,
               f->group[e->group].name);
    if (is_message(e)) {
        buf_printf(out, " %s %" PRIu16, e->op == FLIGHT_SEND ? "to" : "from", e->peer);
    }
    buf_printf(out, ", %" PRIu64 " bytes", e->bytes);
}

void flight_last(const struct flight_file *file, int64_t now_ns, struct buf *out)
{
    const struct flight_entry *open = NULL, *last = newest(file, file->group_count);
    for (uint32_t i = 0; i < FLIGHT_ENTRIES; i++) { /* the oldest that is not over */
        const struct flight_entry *e = &file->entry[i];
        if (e->number > 0 && e->end_ns == 0 && (open == NULL || e->number < open->number)) {
            open = e;
        }
    }
    if (last == NULL) {
        return;
    }
    const struct flight_entry *e = open != NULL ? open : last;
    buf_append_str(out, open != NULL ? "in " : e->failed ? "failed in " : "after ");
    describe(file, e, out);
    int64_t since = open != NULL ? e->begin_ns : e->end_ns;
    buf_printf(out, "%s %.1f s%s", open != NULL ? ", for" : ",",
               ((double)now_ns - (double)since) / 1e9, open != NULL ? "" : " ago");
}

/* ---- comparing */

static bool same_group(const struct flight_group *a, const struct flight_group *b)
{
    return strcmp(a->name, b->name) == 0;
}

/* Number of the group in a file, or its group_count. */
static uint32_t find_group(const struct flight_file *f, const struct flight_group *group)
{
    for (uint32_t i = 0; i < f->group_count; i++) {
        if (same_group(&f->group[i], group)) {
            return i;
        }
    }
    return f->group_count;
}

struct front {
    const struct flight_file *furthest; /* who began the latest call */
    const struct flight_entry *entry;
    uint32_t group; /* there */
};

static struct front find_front(const struct flight_file *const *files, size_t count,
                               const struct flight_group *group)
{
    struct front front = {0};
    for (size_t i = 0; i < count; i++) {
        uint32_t g = find_group(files[i], group);
        const struct flight_entry *e = g < files[i]->group_count ? newest(files[i], g) : NULL;
        if (e != NULL && !is_message(e) && (front.entry == NULL || e->call > front.entry->call)) {
            front = (struct front){files[i], e, g};
        }
    }
    return front;
}

static void add_rank(struct buf *list, uint32_t rank)
{
    buf_printf(list, "%s%" PRIu32, list->len > 0 ? ", " : "", rank);
}

/* Who has not begun the call in which others are. */
static bool find_missing(const struct flight_file *const *files, size_t count,
                         const struct front *front, struct buf *out)
{
    const struct flight_group *group = &front->furthest->group[front->group];
    struct buf waiting = {0}, missing = {0};
    for (size_t i = 0; i < count; i++) {
        uint32_t g = find_group(files[i], group);
        if (g == files[i]->group_count) {
            continue;
        }
        const struct flight_entry *e = newest(files[i], g);
        if (e == NULL || e->call < front->entry->call) {
            add_rank(&missing, files[i]->rank);
        } else if (e->end_ns == 0 || e->failed) {
            add_rank(&waiting, files[i]->rank);
        }
    }
    bool found = missing.len > 0 && waiting.len > 0;
    if (found) {
        describe(front->furthest, front->entry, out);
        buf_printf(out, ": never begun by rank %s, where rank %s waited\n", buf_cstr(&missing),
                   buf_cstr(&waiting));
    }
    buf_fini(&waiting);
    buf_fini(&missing);
    return found;
}

/* Reductions and gathers are of equal size on all ranks; what all-to-alls give is each rank's own.
 */
static bool agree(const struct flight_entry *a, const struct flight_entry *b)
{
    return a->op == b->op && (a->op == FLIGHT_ALL_TO_ALL || a->bytes == b->bytes);
}

static bool find_desync(const struct flight_file *a, uint32_t ga, const struct flight_file *b,
                        struct buf *out)
{
    uint32_t gb = find_group(b, &a->group[ga]);
    const struct flight_entry *first = NULL, *other = NULL;
    for (uint32_t i = 0; gb < b->group_count && i < FLIGHT_ENTRIES; i++) {
        const struct flight_entry *e = &a->entry[i];
        if (e->number == 0 || e->group != ga || is_message(e) ||
            (first != NULL && e->call > first->call)) {
            continue;
        }
        const struct flight_entry *f = call_of(b, gb, e->call);
        if (f != NULL && !agree(e, f)) {
            first = e;
            other = f;
        }
    }
    if (first != NULL) {
        buf_printf(out, "rank %" PRIu32 " and rank %" PRIu32 " differ: ", a->rank, b->rank);
        describe(a, first, out);
        buf_append_str(out, " against ");
        describe(b, other, out);
        buf_append_str(out, "\n");
    }
    return first != NULL;
}

bool flight_compare(const struct flight_file *const *files, size_t count, struct buf *out)
{
    bool found = false;
    for (size_t i = 0; i < count; i++) {
        for (uint32_t g = 0; g < files[i]->group_count; g++) {
            const struct flight_group *group = &files[i]->group[g];
            size_t first = 0;
            while (find_group(files[first], group) == files[first]->group_count) {
                first++;
            }
            if (first < i) { /* each against the first who is in the group */
                found |= find_desync(files[first], find_group(files[first], group), files[i], out);
                continue;
            }
            struct front front = find_front(files, count, group);
            found |= front.entry != NULL && find_missing(files, count, &front, out);
        }
    }
    return found;
}

static int by_number(const void *a, const void *b)
{
    const struct flight_entry *const *x = a, *const *y = b;
    return ((*x)->number > (*y)->number) - ((*x)->number < (*y)->number);
}

void flight_table(const struct flight_file *file, size_t lines, struct buf *out)
{
    const struct flight_entry **list = mem_alloc_array(FLIGHT_ENTRIES, sizeof *list);
    size_t n = 0;
    for (uint32_t i = 0; i < FLIGHT_ENTRIES; i++) {
        if (file->entry[i].number > 0) {
            list[n++] = &file->entry[i];
        }
    }
    if (n > 0) {
        qsort(list, n, sizeof *list, by_number);
    }
    buf_printf(out, "rank %" PRIu32 " of %" PRIu32 "\n%10s %-24s %-14s %10s %12s %10s  %s\n",
               file->rank, file->world, "NUMBER", "CALL", "GROUP", "OF GROUP", "BYTES", "MS", "");
    for (size_t i = n > lines ? n - lines : 0; i < n; i++) {
        const struct flight_entry *e = list[i];
        buf_printf(out, "%10" PRIu64 " %-24s %-14s %10" PRIu64 " %12" PRIu64 " ", e->number,
                   flight_op_name(e->op), file->group[e->group].name, e->call, e->bytes);
        if (e->end_ns == 0) {
            buf_printf(out, "%10s  not over\n", "-");
        } else {
            buf_printf(out, "%10.3f  %s\n", ((double)e->end_ns - (double)e->begin_ns) / 1e6,
                       e->failed ? "failed" : "");
        }
    }
    free(list);
}
