/* TensorBoard event files: TFRecord framing (u64 length, masked CRC-32C of it, data, masked CRC-32C
 * of that) around Event messages (tensorflow/core/util/event.proto), of which only scalars are
 * written. */
#ifndef TRAINER_TFEVENTS_H
#define TRAINER_TFEVENTS_H

#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

struct tfevents {
    int fd;     /* -1: closed, writing is a no-op */
    char *path; /* owned */
};
struct tfevents_scalar {
    const char *tag;
    double value; /* stored as float */
};

/* Creates dir and in it events.out.tfevents.<seconds>.<host>.<pid>. first_step > 0 tells the viewer
 * that what an earlier run wrote from that step on is void. */
int tfevents_open(struct tfevents *t, const char *dir, uint64_t first_step, struct err *err);
/* One event with all the scalars of a step. */
int tfevents_write(struct tfevents *t, int64_t wall_ms, uint64_t step,
                   const struct tfevents_scalar *scalars, size_t count, struct err *err);
void tfevents_close(struct tfevents *t);

uint32_t tfevents_crc32c(const void *data, size_t len);
/* The rotation and offset that TFRecord applies to a CRC. */
uint32_t tfevents_mask(uint32_t crc);

#endif
