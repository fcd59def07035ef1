/* The flight recorder of a rank: its last collectives, in a file that it has mapped, so that they
 * are there after a SIGKILL (reference reliability §2.5). The rank writes (trainer/flight_comm.h),
 * worker and people read. Numbers are this machine's. */
#ifndef PROTO_FLIGHT_H
#define PROTO_FLIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/err.h"

#define FLIGHT_MAGIC      "DSFLIGHT"
#define FLIGHT_VERSION    1u
#define FLIGHT_ENTRIES    4096u
#define FLIGHT_GROUPS_MAX 16u

enum flight_op {
    FLIGHT_ALL_REDUCE_F32,
    FLIGHT_ALL_REDUCE_F64,
    FLIGHT_ALL_REDUCE_U64,
    FLIGHT_REDUCE_SCATTER,
    FLIGHT_ALL_GATHER,
    FLIGHT_ALL_TO_ALL,
    FLIGHT_BROADCAST,
    FLIGHT_BARRIER,
    FLIGHT_SEND,
    FLIGHT_RECV,
    FLIGHT_OPS,
};
const char *flight_op_name(unsigned op);

struct flight_group {
    char name[32]; /* unique within the attempt */
    uint32_t rank, size;
};
struct flight_entry {
    uint64_t number;          /* 1, 2, ... over all groups; 0: never written */
    uint64_t call;            /* of its group: the same on all its ranks, messages aside */
    uint64_t bytes;           /* given by this rank */
    int64_t begin_ns, end_ns; /* since the machine started; 0: not over */
    uint16_t op, group;
    uint16_t peer;   /* of a message */
    uint16_t failed; /* it ended with an error */
};
struct flight_file {
    char magic[8];
    uint32_t version, entries;
    uint32_t rank, world;
    uint64_t next; /* number of the next entry; atomic */
    uint32_t group_count;
    uint32_t unused;
    struct flight_group group[FLIGHT_GROUPS_MAX];
    struct flight_entry entry[FLIGHT_ENTRIES]; /* number n at n % FLIGHT_ENTRIES */
};

/* "flight-3.bin" in dir. Caller frees. */
char *flight_path(const char *dir, uint32_t rank);
/* A copy of a file, whose rank may be writing. ERR_INVALID for one that is none. Caller frees. */
int flight_read(struct flight_file **file, const char *path, struct err *err);

/* What the rank was doing at now_ns: "in all_to_all_v 5121 of expert0, 1048576 bytes, for 12.3 s",
 * or after which it was last. Empty for one that began nothing. */
void flight_last(const struct flight_file *file, int64_t now_ns, struct buf *out);
/* The files of an attempt's ranks against each other: who waits where for whom, and where ranks of
 * a group called different things. One finding a line; true when there is any. Files of other
 * machines have other clocks: times are not compared. */
bool flight_compare(const struct flight_file *const *files, size_t count, struct buf *out);
/* Table of one rank's last `lines` entries, oldest first. */
void flight_table(const struct flight_file *file, size_t lines, struct buf *out);

#endif
