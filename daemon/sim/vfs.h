/* A disk for SQLite that loses power. Files live in memory, in sectors of 512 bytes; a write is
 * kept for sure only once its file was synced, and at a crash each sector that was not is kept or
 * lost by chance, so that pages tear and writes overtake each other. On demand it is full, or its
 * fsync fails. One disk a process. */
#ifndef DAEMON_SIM_VFS_H
#define DAEMON_SIM_VFS_H

#include <stdbool.h>
#include <stdint.h>

/* Registers the disk as SQLite's default one, empty; rng: chance, borrowed. */
void vfs_begin(uint64_t *rng);
/* SQLite writes to real files again. */
void vfs_end(void);

/* The power is gone: open files are dead from now on (their owner closes them), what was not synced
 * is kept with this probability, sector by sector. */
void vfs_crash(double kept);
void vfs_set_full(bool full);          /* every write that needs room fails */
void vfs_set_sync_fails(double share); /* so many of the fsyncs fail */
/* Counted since vfs_begin. */
uint64_t vfs_syncs(void);
uint64_t vfs_sectors_lost(void);

#endif
