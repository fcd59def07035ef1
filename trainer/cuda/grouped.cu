/* One persistent block a multiprocessor. It goes through output tiles of 128 x 128 (tiles.h); for
 * each, one thread keeps a ring of stages in shared memory filled by the copy engine, 128 columns
 * of both operands a stage, and two warpgroups multiply 64 rows each. The tensor cores add up the
 * 128 columns of a stage (they keep some 14 bits); the stage's sum is then scaled and added to FP32
 * registers.
 *
 * Rows of x: a tile that ends inside the last 128 rows of its group also reads rows of the next
 * group, whose results are not stored. Wgrad: the column codes are zero beyond a group, so no mask
 * is needed. The tile walk reads the offsets on the device, so that the host need not know them. */
#include "trainer/cuda/grouped.h"

#include "trainer/cuda/hopper.cuh"
#include "trainer/cuda/tiles.h"

namespace
{
constexpr int STAGES = 6;
constexpr int CONSUMERS = 2; /* warpgroups */
constexpr int THREADS = (1 + CONSUMERS) * WARPGROUP;
constexpr int STEP = 32; /* columns of one instruction */

struct Stage {
    unsigned char a[TILE * TILE], b[TILE * TILE];
};

struct Shared {
    Stage stage[STAGES];
    float scale_a[STAGES][TILE], scale_b[STAGES][TILE]; /* of columns of codes */
    uint64_t full[STAGES], empty[STAGES];
};

struct Args {
    const uint32_t *offset;
    uint32_t groups, rows, n, k;
    const float *scale_a, *scale_b;
    uint16_t *y;
    float alpha, *dw;
};

/* Where the operands of an output tile lie, and how long the sum is. */
struct Work {
    uint32_t a_row, b_row;   /* of the maps */
    uint32_t first_k, tiles; /* columns of the maps; in tiles of 128 */
    uint32_t scale_tile;     /* the first tile's number */
    uint32_t out_row, out_col, rows, cols, group;
};

/* by_rows: Fprop and Dgrad; else Wgrad. */
template <bool by_rows>
__device__ __forceinline__ bool find_work(const Args &p, uint32_t index, Work *w)
{
    struct product_tile t;
    uint32_t cols = tiles_of(by_rows ? p.n : p.k), m = by_rows ? 0 : tiles_of(p.n);
    if (!product_tile_find(p.offset, p.groups, m, cols, index, &t)) {
        return false;
    }
    uint32_t first = p.offset[t.group], rows = p.offset[t.group + 1] - first;
    w->group = t.group;
    w->out_col = t.col * TILE;
    if (by_rows) {
        w->out_row = first + t.row * TILE;
        w->rows = rows - t.row * TILE < TILE ? rows - t.row * TILE : TILE;
        w->cols = TILE;
        w->a_row = w->out_row;
        w->b_row = t.group * p.n + w->out_col;
        w->first_k = 0;
        w->tiles = p.k / TILE;
        w->scale_tile = 0;
        return true;
    }
    uint32_t start = 0;
    for (uint32_t g = 0; g < t.group; g++) {
        start += tiles_of(p.offset[g + 1] - p.offset[g]);
    }
    w->out_row = t.row * TILE;
    w->rows = p.n - w->out_row < TILE ? p.n - w->out_row : TILE;
    w->cols = p.k - w->out_col < TILE ? p.k - w->out_col : TILE;
    w->a_row = w->out_row;
    w->b_row = w->out_col;
    w->first_k = start * TILE;
    w->tiles = tiles_of(rows);
    w->scale_tile = start;
    return true;
}

/* A place in the ring, and how often it has come round. */
struct Ring {
    int stage;
    unsigned parity;
    __device__ __forceinline__ void next()
    {
        stage = stage + 1 == STAGES ? 0 : stage + 1;
        parity ^= stage == 0 ? 1u : 0u;
    }
};

template <bool by_rows>
__device__ __forceinline__ void produce(const struct tensor_map *map_a,
                                        const struct tensor_map *map_b, const Args &p, Shared *s)
{
    Ring ring = {0, 0};
    Work w;
    for (uint32_t i = blockIdx.x; find_work<by_rows>(p, i, &w); i += gridDim.x) {
        for (uint32_t k = 0; k < w.tiles; k++, ring.next()) {
            uint64_t *full = &s->full[ring.stage];
            unsigned bytes = sizeof(Stage);
            barrier_wait(&s->empty[ring.stage], ring.parity ^ 1);
            if (!by_rows) {
                bytes += (w.rows + w.cols) * (unsigned)sizeof(float);
            }
            barrier_arrive_expect(full, bytes);
            copy_box(s->stage[ring.stage].a, map_a, w.first_k + k * TILE, w.a_row, full);
            copy_box(s->stage[ring.stage].b, map_b, w.first_k + k * TILE, w.b_row, full);
            if (!by_rows) {
                size_t tile = w.scale_tile + k;
                copy_bytes(s->scale_a[ring.stage], p.scale_a + tile * p.n + w.out_row,
                           w.rows * (unsigned)sizeof(float), full);
                copy_bytes(s->scale_b[ring.stage], p.scale_b + tile * p.k + w.out_col,
                           w.cols * (unsigned)sizeof(float), full);
            }
        }
    }
}

/* The thread's place in its warpgroup's 64 x 128. */
struct Share {
    uint32_t row, col; /* of its first number; the others: ACCUMULATORS */
};

template <bool by_rows>
__device__ __forceinline__ void multiply(const Work &w, const Args &p, Shared *s, Ring *ring,
                                         uint32_t group, Share at, float (&total)[ACCUMULATORS])
{
    for (uint32_t k = 0; k < w.tiles; k++, ring->next()) {
        float d[ACCUMULATORS], high = 0, low = 0;
        if (by_rows) { /* asked for before the wait */
            const float *scale = p.scale_a + (size_t)k * p.rows + w.out_row;
            float block = p.scale_b[(size_t)(w.b_row / TILE) * block_scale_pitch(p.k) + k];
            high = at.row < w.rows ? scale[at.row] * block : 0.0f;
            low = at.row + 8 < w.rows ? scale[at.row + 8] * block : 0.0f;
        }
        barrier_wait(&s->full[ring->stage], ring->parity);
        product_begin();
#pragma unroll
        for (int step = 0; step < TILE / STEP; step++) {
            product_step(d,
                         tile_descriptor(s->stage[ring->stage].a + group * 64 * TILE, step * STEP),
                         tile_descriptor(s->stage[ring->stage].b, step * STEP), step > 0);
        }
        product_commit();
        product_wait(d);
        if (by_rows) {
#pragma unroll
            for (int i = 0; i < ACCUMULATORS; i++) {
                total[i] += (i / 2 % 2 == 0 ? high : low) * d[i];
            }
        } else {
            high = s->scale_a[ring->stage][at.row];
            low = s->scale_a[ring->stage][at.row + 8];
#pragma unroll
            for (int j = 0; j < ACCUMULATORS / 4; j++) {
                float2 b = *(const float2 *)&s->scale_b[ring->stage][j * 8 + at.col];
                total[4 * j] += high * b.x * d[4 * j];
                total[4 * j + 1] += high * b.y * d[4 * j + 1];
                total[4 * j + 2] += low * b.x * d[4 * j + 2];
                total[4 * j + 3] += low * b.y * d[4 * j + 3];
            }
        }
        __syncwarp();
        if (threadIdx.x % WARP == 0) {
            barrier_arrive(&s->empty[ring->stage]);
        }
    }
}

template <bool by_rows>
__device__ __forceinline__ void store(const Work &w, const Args &p, Share at,
                                      const float (&total)[ACCUMULATORS])
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        uint32_t row = at.row + 8 * (uint32_t)half;
        if (row >= w.rows) {
            continue;
        }
        size_t out = by_rows ? (size_t)(w.out_row + row) * p.n
                             : ((size_t)w.group * p.n + w.out_row + row) * p.k;
        out += w.out_col + at.col;
#pragma unroll
        for (int j = 0; j < ACCUMULATORS / 4; j++) {
            float x = total[4 * j + 2 * half], y = total[4 * j + 2 * half + 1];
            if (by_rows) {
                *(uint32_t *)(p.y + out + j * 8) = bf16_pair(x, y);
            } else if (at.col + 8 * (uint32_t)j < w.cols) {
                float2 *to = (float2 *)(p.dw + out + j * 8), before = *to;
                *to = make_float2(before.x + p.alpha * x, before.y + p.alpha * y);
            }
        }
    }
}

template <bool by_rows>
__device__ __forceinline__ void consume(const Args &p, Shared *s, uint32_t group)
{
    const uint32_t thread = threadIdx.x % WARPGROUP, lane = thread % WARP;
    const Share at = {group * 64 + thread / WARP * 16 + lane / 4, lane % 4 * 2};
    Ring ring = {0, 0};
    Work w;
    for (uint32_t i = blockIdx.x; find_work<by_rows>(p, i, &w); i += gridDim.x) {
        float total[ACCUMULATORS];
#pragma unroll
        for (int j = 0; j < ACCUMULATORS; j++) {
            total[j] = 0;
        }
        multiply<by_rows>(w, p, s, &ring, group, at, total);
        if (w.tiles > 0) {
            store<by_rows>(w, p, at, total);
        }
    }
}

template <bool by_rows>
__global__ void __launch_bounds__(THREADS, 1)
    grouped_kernel(const __grid_constant__ struct tensor_map map_a,
                   const __grid_constant__ struct tensor_map map_b, Args p)
{
    DYNAMIC_SHARED(memory);
    Shared *s = (Shared *)memory;
    const uint32_t group = threadIdx.x / WARPGROUP;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&s->full[i], 1);
            barrier_init(&s->empty[i], CONSUMERS * WARPGROUP / WARP);
        }
        barrier_fence();
    }
    __syncthreads();
    if (group == 0) {
        registers_fewer<56>();
        if (threadIdx.x == 0) {
            produce<by_rows>(&map_a, &map_b, p, s);
        }
    } else {
        registers_more<224>();
        consume<by_rows>(p, s, group - 1);
    }
}

template <bool by_rows>
int run(struct grouped g, const struct tensor_map &a, const struct tensor_map &b, const Args &p)
{
    auto kernel = grouped_kernel<by_rows>;
#ifdef __CUDACC__
    static bool allowed; /* more than 48 KiB */
    if (!allowed) {
        int rc = (int)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           (int)sizeof(Shared));
        if (rc != 0) {
            return rc;
        }
        allowed = true;
    }
#endif
    return LAUNCH(kernel, g.blocks, THREADS, sizeof(Shared), g.stream, a, b, p);
}

constexpr int REFUSED = 1; /* cudaErrorInvalidValue */
} // namespace

int grouped_rows(struct grouped g, uint32_t n, uint32_t k, struct fp8_codes x, struct fp8_codes w,
                 uint16_t *y)
{
    struct tensor_map a, b;
    if (n % TILE != 0 || k % TILE != 0) {
        return REFUSED;
    }
    if (g.rows == 0 || n == 0 || k == 0) {
        return 0;
    }
    int rc = tensor_map_make(&a, x.code, g.rows, k, TILE);
    rc = rc != 0 ? rc : tensor_map_make(&b, w.code, (uint64_t)g.groups * n, k, TILE);
    const Args p = {g.offset, g.groups, g.rows, n, k, x.scale, w.scale, y, 1.0f, NULL};
    return rc != 0 ? rc : run<true>(g, a, b, p);
}

int grouped_weights(struct grouped g, uint32_t n, uint32_t k, size_t padded, struct fp8_codes dy,
                    struct fp8_codes x, float alpha, float *dw)
{
    struct tensor_map a, b;
    if (n % 8 != 0 || k % 8 != 0 || padded % TILE != 0) {
        return REFUSED;
    }
    if (g.rows == 0 || n == 0 || k == 0) {
        return 0;
    }
    int rc = tensor_map_make(&a, dy.code, n, padded, TILE);
    rc = rc != 0 ? rc : tensor_map_make(&b, x.code, k, padded, TILE);
    const Args p = {g.offset, g.groups, g.rows, n, k, dy.scale, x.scale, NULL, alpha, dw};
    return rc != 0 ? rc : run<false>(g, a, b, p);
}
