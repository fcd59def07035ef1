#include "trainer/cuda/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include "trainer/cuda/gemm.h"

#define WORKSPACE ((size_t)32 << 20) /* what cuBLAS asks for on Hopper */

struct cuda_state cuda_state;

static int refuse(struct err *err, uint32_t device, const char *what, cudaError_t code)
{
    return err_set(err, ERR_CONFIG,
                   "cannot use GPU %u: %s: %s (see nvidia-smi; --backend cpu does without)", device,
                   what, cudaGetErrorString(code));
}

int state_open(uint32_t device, struct err *err)
{
    struct cuda_state *s = &cuda_state;
    struct cudaDeviceProp properties;
    cudaError_t rc = cudaSetDevice((int)device);
    if (rc != cudaSuccess) {
        return refuse(err, device, "cudaSetDevice", rc);
    }
    rc = cudaGetDeviceProperties(&properties, (int)device);
    if (rc != cudaSuccess) {
        return refuse(err, device, "cudaGetDeviceProperties", rc);
    }
    s->multiprocessors = (uint32_t)properties.multiProcessorCount;
    s->workspace_bytes = WORKSPACE;
    rc = cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking);
    if (rc != cudaSuccess) {
        return refuse(err, device, "cudaStreamCreate", rc);
    }
    rc = cudaMalloc(&s->workspace, WORKSPACE);
    if (rc == cudaSuccess) {
        rc = cudaMalloc((void **)&s->partial, STATE_PARTIALS * sizeof *s->partial);
    }
    if (rc == cudaSuccess) {
        rc = cudaMallocHost((void **)&s->sums, sizeof *s->sums);
    }
    if (rc != cudaSuccess) {
        return refuse(err, device, "memory of its own", rc);
    }
    cublasLtHandle_t handle;
    cublasStatus_t status = cublasLtCreate(&handle);
    if (status != CUBLAS_STATUS_SUCCESS) {
        return err_set(err, ERR_CONFIG, "cannot use GPU %u: cublasLtCreate: %s", device,
                       cublasLtGetStatusString(status));
    }
    s->blaslt = handle;
    return 0;
}

void state_check(int code, const char *what)
{
    if (code == 0) {
        return;
    }
    const char *why = code >= GEMM_ERROR
                          ? cublasLtGetStatusString((cublasStatus_t)(code - GEMM_ERROR))
                          : cudaGetErrorString((cudaError_t)code);
    fprintf(stderr,
            "the GPU failed: %s: %s (see dmesg for Xid; the run goes on from its last "
            "checkpoint)\n",
            what, why);
    exit(EX_SOFTWARE);
}
