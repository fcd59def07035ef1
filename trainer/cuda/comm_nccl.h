/* Groups of GPUs over NCCL (comm.h). Collectives of device memory are queued on the back end's
 * stream and nothing waits for them; those of host memory go through a buffer on the device and are
 * waited for. A watchdog thread ends the process with the status of an aborted collective when NCCL
 * reports an error or a collective is not over within the group's time-out, after aborting the
 * communicator. Sums depend on the group, not on the run: NCCL chooses its algorithm by size, type
 * and topology. Unlike Gloo's, a reduce-scatter's numbers need not be those of an all-reduce to the
 * last bit. send and recv are NULL: there is no pipeline over NCCL yet. */
#ifndef TRAINER_CUDA_COMM_NCCL_H
#define TRAINER_CUDA_COMM_NCCL_H

#include <stdint.h>

#include "lib/err.h"
#include "trainer/comm.h"

/* The library is loaded when the first group is made. ERR_CONFIG without it; ERR_COMM when the
 * ranks do not meet in time. */
int comm_nccl_create(struct comm **c, const struct comm_store *store, const char *prefix,
                     uint32_t rank, uint32_t size, int64_t timeout_ms, struct err *err);

#endif
