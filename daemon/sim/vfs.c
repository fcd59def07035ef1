#include "daemon/sim/vfs.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/sim/rng.h"
#include "lib/mem.h"

#define SECTOR     512
#define FILES_MAX  16
#define NAME_BYTES 256
#define SHM_MAX    64

struct disk_file {
    char name[NAME_BYTES]; /* empty: free */
    bool named;            /* the name itself survives a crash */
    uint8_t *data;         /* owned; as the process sees it */
    size_t size, capacity;
    uint8_t *durable; /* owned; as it is after a crash */
    size_t durable_size, durable_capacity;
    bool *dirty; /* owned; by sector: written since the last sync */
    size_t dirty_capacity;
    void *shm[SHM_MAX]; /* owned; of the process: gone after a crash */
    int handles;
};
struct handle {
    sqlite3_file base;
    struct disk_file *file;
    uint64_t life; /* handles of an earlier life are dead */
    bool delete_on_close;
};
static struct {
    struct disk_file files[FILES_MAX];
    uint64_t life;
    uint64_t *rng;
    bool full;
    double sync_fails;
    uint64_t syncs, sectors_lost;
} disk;

static struct disk_file *find(const char *name)
{
    for (int i = 0; i < FILES_MAX; i++) {
        if (strcmp(disk.files[i].name, name) == 0) {
            return &disk.files[i];
        }
    }
    return NULL;
}

static void clear_file(struct disk_file *file)
{
    for (int i = 0; i < SHM_MAX; i++) {
        free(file->shm[i]);
    }
    free(file->data);
    free(file->durable);
    free(file->dirty);
    *file = (struct disk_file){0};
}

static void grow_bytes(uint8_t **data, size_t *capacity, size_t size)
{
    size_t old = *capacity;
    void *bytes = *data;
    mem_grow(&bytes, capacity, size + 1, 1);
    *data = bytes;
    memset(*data + old, 0, *capacity - old);
}

static void mark(struct disk_file *file, size_t from, size_t to)
{
    size_t last = (to + SECTOR - 1) / SECTOR, old = file->dirty_capacity;
    void *dirty = file->dirty;
    mem_grow(&dirty, &file->dirty_capacity, last + 1, sizeof *file->dirty);
    file->dirty = dirty;
    memset(file->dirty + old, 0, (file->dirty_capacity - old) * sizeof *file->dirty);
    for (size_t i = from / SECTOR; i < last; i++) {
        file->dirty[i] = true;
    }
}

/* ---- the methods of a file */
static bool is_dead(const struct handle *h)
{
    return h->life != disk.life;
}

static int f_close(sqlite3_file *base)
{
    struct handle *h = (struct handle *)base;
    if (!is_dead(h)) {
        h->file->handles--;
        if (h->delete_on_close) {
            clear_file(h->file);
        }
    }
    return SQLITE_OK;
}

static int f_read(sqlite3_file *base, void *out, int bytes, sqlite3_int64 at)
{
    struct handle *h = (struct handle *)base;
    if (is_dead(h)) {
        return SQLITE_IOERR_READ;
    }
    size_t from = (size_t)at, wanted = (size_t)bytes;
    size_t have = from < h->file->size ? h->file->size - from : 0;
    have = have < wanted ? have : wanted;
    if (have > 0) {
        memcpy(out, h->file->data + from, have);
    }
    memset((char *)out + have, 0, wanted - have);
    return have == wanted ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}

static int f_write(sqlite3_file *base, const void *data, int bytes, sqlite3_int64 at)
{
    struct handle *h = (struct handle *)base;
    size_t from = (size_t)at, to = from + (size_t)bytes;
    if (is_dead(h)) {
        return SQLITE_IOERR_WRITE;
    }
    if (disk.full) {
        return SQLITE_FULL;
    }
    grow_bytes(&h->file->data, &h->file->capacity, to);
    memcpy(h->file->data + from, data, (size_t)bytes);
    h->file->size = to > h->file->size ? to : h->file->size;
    mark(h->file, from, to);
    return SQLITE_OK;
}

static int f_truncate(sqlite3_file *base, sqlite3_int64 size)
{
    struct handle *h = (struct handle *)base;
    if (is_dead(h)) {
        return SQLITE_IOERR_TRUNCATE;
    }
    if ((size_t)size < h->file->size) {
        memset(h->file->data + size, 0, h->file->size - (size_t)size);
        mark(h->file, (size_t)size, h->file->size);
        h->file->size = (size_t)size;
    }
    return SQLITE_OK;
}

static int f_sync(sqlite3_file *base, int flags)
{
    (void)flags;
    struct handle *h = (struct handle *)base;
    if (is_dead(h) || (disk.sync_fails > 0 && rng_chance(disk.rng, disk.sync_fails))) {
        return SQLITE_IOERR_FSYNC;
    }
    struct disk_file *file = h->file;
    disk.syncs++;
    grow_bytes(&file->durable, &file->durable_capacity, file->size);
    for (size_t i = 0; i < file->dirty_capacity; i++) {
        size_t from = i * SECTOR;
        if (file->dirty[i] && from < file->size) {
            size_t len = file->size - from < SECTOR ? file->size - from : SECTOR;
            memcpy(file->durable + from, file->data + from, len);
        }
        file->dirty[i] = false;
    }
    file->durable_size = file->size;
    file->named = true;
    return SQLITE_OK;
}

static int f_size(sqlite3_file *base, sqlite3_int64 *size)
{
    struct handle *h = (struct handle *)base;
    *size = is_dead(h) ? 0 : (sqlite3_int64)h->file->size;
    return is_dead(h) ? SQLITE_IOERR_FSTAT : SQLITE_OK;
}

/* One process, one thread: a lock is never in anybody's way. */
static int f_lock(sqlite3_file *base, int level)
{
    (void)base;
    (void)level;
    return SQLITE_OK;
}

static int f_reserved(sqlite3_file *base, int *held)
{
    (void)base;
    *held = 0;
    return SQLITE_OK;
}

static int f_control(sqlite3_file *base, int op, void *arg)
{
    (void)base;
    (void)op;
    (void)arg;
    return SQLITE_NOTFOUND;
}

static int f_sector(sqlite3_file *base)
{
    (void)base;
    return SECTOR;
}

static int f_traits(sqlite3_file *base)
{
    (void)base;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE | SQLITE_IOCAP_ATOMIC512;
}

static int f_shm_map(sqlite3_file *base, int region, int bytes, int extend, void volatile **out)
{
    struct handle *h = (struct handle *)base;
    *out = NULL;
    if (is_dead(h) || region >= SHM_MAX) {
        return SQLITE_IOERR_SHMMAP;
    }
    if (h->file->shm[region] == NULL && extend != 0) {
        h->file->shm[region] = mem_alloc((size_t)bytes);
    }
    *out = h->file->shm[region];
    return SQLITE_OK;
}

static int f_shm_lock(sqlite3_file *base, int offset, int n, int flags)
{
    (void)base;
    (void)offset;
    (void)n;
    (void)flags;
    return SQLITE_OK;
}

static void f_shm_barrier(sqlite3_file *base)
{
    (void)base;
}

static int f_shm_unmap(sqlite3_file *base, int remove)
{
    struct handle *h = (struct handle *)base;
    for (int i = 0; i < SHM_MAX && remove != 0 && !is_dead(h) && h->file->handles <= 1; i++) {
        free(h->file->shm[i]);
        h->file->shm[i] = NULL;
    }
    return SQLITE_OK;
}

static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = f_close,
    .xRead = f_read,
    .xWrite = f_write,
    .xTruncate = f_truncate,
    .xSync = f_sync,
    .xFileSize = f_size,
    .xLock = f_lock,
    .xUnlock = f_lock,
    .xCheckReservedLock = f_reserved,
    .xFileControl = f_control,
    .xSectorSize = f_sector,
    .xDeviceCharacteristics = f_traits,
    .xShmMap = f_shm_map,
    .xShmLock = f_shm_lock,
    .xShmBarrier = f_shm_barrier,
    .xShmUnmap = f_shm_unmap,
};

/* ---- the methods of the disk */
static int v_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *base, int flags, int *out_flags)
{
    (void)vfs;
    struct handle *h = (struct handle *)base;
    h->base.pMethods = NULL;
    char made[32];
    if (name == NULL) {
        static unsigned temporary;
        snprintf(made, sizeof made, "temporary-%u", temporary++);
        name = made;
    }
    struct disk_file *file = find(name);
    if (file == NULL) {
        file = find("");
        if ((flags & SQLITE_OPEN_CREATE) == 0 || file == NULL || strlen(name) >= NAME_BYTES) {
            return SQLITE_CANTOPEN;
        }
        snprintf(file->name, sizeof file->name, "%s", name);
    }
    file->handles++;
    h->file = file;
    h->life = disk.life;
    h->delete_on_close = (flags & SQLITE_OPEN_DELETEONCLOSE) != 0;
    h->base.pMethods = &methods;
    if (out_flags != NULL) {
        *out_flags = flags;
    }
    return SQLITE_OK;
}

static int v_delete(sqlite3_vfs *vfs, const char *name, int sync_dir)
{
    (void)vfs;
    (void)sync_dir;
    struct disk_file *file = find(name);
    if (file == NULL) {
        return SQLITE_IOERR_DELETE_NOENT;
    }
    clear_file(file);
    return SQLITE_OK;
}

static int v_access(sqlite3_vfs *vfs, const char *name, int flags, int *result)
{
    (void)vfs;
    (void)flags;
    *result = find(name) != NULL;
    return SQLITE_OK;
}

static int v_full_name(sqlite3_vfs *vfs, const char *name, int bytes, char *out)
{
    (void)vfs;
    snprintf(out, (size_t)bytes, "%s", name);
    return SQLITE_OK;
}

static int v_randomness(sqlite3_vfs *vfs, int bytes, char *out)
{
    (void)vfs;
    for (int i = 0; i < bytes; i++) {
        out[i] = (char)rng_next(disk.rng);
    }
    return bytes;
}

static int v_sleep(sqlite3_vfs *vfs, int microseconds)
{
    (void)vfs;
    return microseconds;
}

static int v_time(sqlite3_vfs *vfs, double *day)
{
    (void)vfs;
    *day = 2460000.5;
    return SQLITE_OK;
}

static int v_last_error(sqlite3_vfs *vfs, int bytes, char *out)
{
    (void)vfs;
    (void)bytes;
    (void)out;
    return 0;
}

static sqlite3_vfs vfs_methods = {
    .iVersion = 1,
    .szOsFile = sizeof(struct handle),
    .mxPathname = NAME_BYTES,
    .zName = "ds-crash",
    .xOpen = v_open,
    .xDelete = v_delete,
    .xAccess = v_access,
    .xFullPathname = v_full_name,
    .xRandomness = v_randomness,
    .xSleep = v_sleep,
    .xCurrentTime = v_time,
    .xGetLastError = v_last_error,
};

/* ---- life */
void vfs_begin(uint64_t *rng)
{
    disk.rng = rng;
    disk.life++;
    disk.full = false;
    disk.sync_fails = 0;
    disk.syncs = disk.sectors_lost = 0;
    sqlite3_vfs_register(&vfs_methods, 1);
    sqlite3_randomness(0, NULL); /* its own generator begins anew, from this disk */
}

void vfs_end(void)
{
    sqlite3_vfs_unregister(&vfs_methods);
    for (int i = 0; i < FILES_MAX; i++) {
        clear_file(&disk.files[i]);
    }
    disk.life++;
}

/* What is on the disk when the power comes back. */
static void settle(struct disk_file *file, double kept)
{
    size_t longest = file->size > file->durable_size ? file->size : file->durable_size;
    grow_bytes(&file->data, &file->capacity, longest);
    grow_bytes(&file->durable, &file->durable_capacity, longest);
    size_t size = file->durable_size;
    for (size_t i = 0; i < file->dirty_capacity; i++) {
        size_t from = i * SECTOR, to = from + SECTOR < longest ? from + SECTOR : longest;
        if (!file->dirty[i] || from >= longest) {
            continue;
        }
        file->dirty[i] = false;
        if (from < file->size && rng_chance(disk.rng, kept)) {
            to = to < file->size ? to : file->size;
            memcpy(file->durable + from, file->data + from, to - from);
            size = to > size ? to : size;
        } else {
            disk.sectors_lost++;
        }
    }
    file->durable_size = size;
    memcpy(file->data, file->durable, size);
    memset(file->data + size, 0, file->capacity - size);
    file->size = size;
}

void vfs_crash(double kept)
{
    disk.life++;
    for (int i = 0; i < FILES_MAX; i++) {
        struct disk_file *file = &disk.files[i];
        if (file->name[0] == 0) {
            continue;
        }
        if (!file->named && !rng_chance(disk.rng, kept)) {
            clear_file(file);
            continue;
        }
        settle(file, kept);
        file->handles = 0;
        for (int s = 0; s < SHM_MAX; s++) {
            free(file->shm[s]);
            file->shm[s] = NULL;
        }
    }
}

void vfs_set_full(bool full)
{
    disk.full = full;
}

void vfs_set_sync_fails(double share)
{
    disk.sync_fails = share;
}

uint64_t vfs_syncs(void)
{
    return disk.syncs;
}

uint64_t vfs_sectors_lost(void)
{
    return disk.sectors_lost;
}
