/* Device memory, and the plain loops over it. */
#include "trainer/cuda/each.cuh"
#include "trainer/cuda/no_memory.h"
#include "trainer/cuda/ops.h"

void *ops_alloc(size_t bytes)
{
    void *p = NULL;
    bytes = bytes > 0 ? bytes : 1;
    if (cudaMalloc(&p, bytes) != 0) {
        size_t left = 0, all = 0;
        (void)cudaGetLastError();
        (void)cudaMemGetInfo(&left, &all);
        no_memory(bytes, left, all);
    }
    state_check((int)cudaMemsetAsync(p, 0, bytes, cuda_state.stream), "clear new memory");
    return p;
}

void ops_release(void *p)
{
    if (p != NULL) {
        state_check((int)cudaStreamSynchronize(cuda_state.stream), "wait for the device");
        state_check((int)cudaFree(p), "release memory");
    }
}

void ops_copy_to_host(void *host, const void *p, size_t bytes)
{
    state_check((int)cudaMemcpyAsync(host, p, bytes, cudaMemcpyDeviceToHost, cuda_state.stream),
                "copy to the host");
    state_check((int)cudaStreamSynchronize(cuda_state.stream), "wait for the device");
}

/* From memory that is not pinned: it is read before the call returns. */
void ops_copy_from_host(void *p, const void *host, size_t bytes)
{
    state_check((int)cudaMemcpyAsync(p, host, bytes, cudaMemcpyHostToDevice, cuda_state.stream),
                "copy to the device");
}

struct Scale {
    float *x, factor;
    __device__ void operator()(size_t, size_t i) const
    {
        x[i] *= factor;
    }
};

void ops_scale(float *x, float factor, size_t count)
{
    each(Scale{x, factor}, 1, count, "scale");
}

struct Copy {
    struct mat x, y;
    __device__ void operator()(size_t row, size_t col) const
    {
        *at(y, row, col) = *at(x, row, col);
    }
};

void ops_copy(struct mat x, struct mat y)
{
    each(Copy{x, y}, y.rows, y.cols, "copy");
}

struct Zero {
    struct mat y;
    __device__ void operator()(size_t row, size_t col) const
    {
        *at(y, row, col) = 0;
    }
};

void ops_zero(struct mat y)
{
    each(Zero{y}, y.rows, y.cols, "zero");
}

struct Add {
    struct mat x, y, out;
    __device__ void operator()(size_t row, size_t col) const
    {
        *at(out, row, col) = *at(x, row, col) + *at(y, row, col);
    }
};

void ops_add(struct mat x, struct mat y, struct mat out)
{
    each(Add{x, y, out}, out.rows, out.cols, "add");
}
