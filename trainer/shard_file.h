/* A checkpoint's file on its way to the disk: written from front to back under a temporary name,
 * hashed, made durable, renamed. */
#ifndef TRAINER_SHARD_FILE_H
#define TRAINER_SHARD_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "trainer/digest.h"

struct shard_file {
    int fd;
    char *path, *tmp; /* owned */
    struct digest digest;
    uint64_t bytes; /* written so far */
};

/* Takes the room of bytes first, so that a full disk fails before the work. Errors name the file.
 * Call shard_file_close in any case. */
int shard_file_create(struct shard_file *f, const char *path, uint64_t bytes, struct err *err);
int shard_file_write(struct shard_file *f, const void *data, size_t len, struct err *err);
/* After return 0 the file survives a power loss once its folder is fsynced. */
int shard_file_commit(struct shard_file *f, char xxh3[33], char sha256[65], struct err *err);
/* Also removes what was not committed. A zeroed one is fine. */
void shard_file_close(struct shard_file *f);

#endif
