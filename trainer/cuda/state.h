/* The device of this process, and what launches on it share. One rank, one device, one stream. */
#ifndef TRAINER_CUDA_STATE_H
#define TRAINER_CUDA_STATE_H

#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st; /* a cudaStream_t points to it */

/* Doubles in `partial` and `sums`: the most that one kernel leaves for another to add up. */
#define STATE_PARTIALS 256

struct cuda_state {
    struct CUstream_st *stream;
    void *blaslt;    /* cublasLtHandle_t */
    void *workspace; /* of products */
    size_t workspace_bytes;
    double *partial; /* on the device */
    double *sums;    /* pinned, on the host */
    uint32_t multiprocessors;
};
extern struct cuda_state cuda_state;

/* Takes device `device` for this process. ERR_CONFIG. */
int state_open(uint32_t device, struct err *err);

/* code: what a launch function of this back end returned, 0 or an error of the CUDA runtime. A
 * failure ends the process: device memory is then in no known state, and the run goes on from its
 * last checkpoint. */
void state_check(int code, const char *what);

#ifdef __cplusplus
}
#endif

#endif
