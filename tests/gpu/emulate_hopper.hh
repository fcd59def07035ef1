/* trainer/cuda/hopper.cuh on the CPU. Copies arrive at once; a warpgroup's product is worked out by
 * each thread for its own elements, out of shared memory through the same descriptors and the same
 * swizzle, added up in double. A tensor map holds what it was made from. */
#ifndef TESTS_GPU_EMULATE_HOPPER_HH
#define TESTS_GPU_EMULATE_HOPPER_HH

#include <assert.h>

#include "trainer/fp8.h"

/* What emulate.cc's tensor_map_make puts into opaque[]. */
enum { EMU_DATA, EMU_ROWS, EMU_COLS, EMU_BOX };

static inline uint32_t shared_address(const void *p)
{
    return (uint32_t)((const unsigned char *)p - emu_shared());
}

/* A barrier: arrivals wanted and left in 16 bits each, bytes awaited in 31, the phase's parity. */
struct emu_barrier {
    uint16_t wanted, left;
    int32_t bytes_and_parity; /* bytes * 2 + parity */
};
static_assert(sizeof(struct emu_barrier) == 8, "as large as the hardware's");

static inline void emu_turn_over(emu_barrier *b)
{
    if (b->left == 0 && b->bytes_and_parity >> 1 == 0) {
        b->left = b->wanted;
        b->bytes_and_parity ^= 1;
    }
}

static inline void barrier_init(uint64_t *bar, unsigned arrivals)
{
    *(emu_barrier *)bar = emu_barrier{(uint16_t)arrivals, (uint16_t)arrivals, 0};
}

static inline void barrier_fence(void)
{
}

static inline void barrier_arrive(uint64_t *bar)
{
    emu_barrier *b = (emu_barrier *)bar;
    assert(b->left > 0);
    b->left--;
    emu_turn_over(b);
}

static inline void barrier_arrive_expect(uint64_t *bar, unsigned bytes)
{
    ((emu_barrier *)bar)->bytes_and_parity += (int32_t)bytes * 2;
    barrier_arrive(bar);
}

static inline void emu_arrived(uint64_t *bar, unsigned bytes)
{
    emu_barrier *b = (emu_barrier *)bar;
    b->bytes_and_parity -= (int32_t)bytes * 2;
    emu_turn_over(b);
}

static inline void barrier_wait(uint64_t *bar, unsigned parity)
{
    while ((((emu_barrier *)bar)->bytes_and_parity & 1) == (int)parity) {
        emu_yield();
    }
}

/* The place of a byte of a tile whose rows are 128 bytes: 16-byte parts permuted by the row. */
static inline uint32_t emu_swizzled(uint32_t address)
{
    return address ^ (address >> 7 & 7) << 4;
}

static inline void copy_box(void *to, const struct tensor_map *map, unsigned col, unsigned row,
                            uint64_t *bar)
{
    const uint64_t *m = map->opaque;
    const uint8_t *data = (const uint8_t *)(uintptr_t)m[EMU_DATA];
    uint32_t at = shared_address(to);
    assert(at % 1024 == 0);
    for (uint32_t r = 0; r < m[EMU_BOX]; r++) {
        for (uint32_t c = 0; c < 128; c++) {
            bool inside = row + r < m[EMU_ROWS] && col + c < m[EMU_COLS];
            emu_shared()[emu_swizzled(at + r * 128 + c)] =
                inside ? data[(size_t)(row + r) * m[EMU_COLS] + col + c] : 0;
        }
    }
    emu_arrived(bar, (unsigned)m[EMU_BOX] * 128);
}

static inline void copy_bytes(void *to, const void *from, unsigned bytes, uint64_t *bar)
{
    assert(bytes % 16 == 0 && (uintptr_t)from % 16 == 0 && shared_address(to) % 16 == 0);
    memcpy(to, from, bytes);
    emu_arrived(bar, bytes);
}

template <int count> static inline void registers_more(void)
{
}

template <int count> static inline void registers_fewer(void)
{
}

static inline uint64_t tile_descriptor(const void *tile, unsigned bytes)
{
    assert(shared_address(tile) % 1024 == 0 && bytes < 128);
    return (shared_address(tile) + bytes) >> 4;
}

static inline void product_begin(void)
{
}

static inline void product_commit(void)
{
}

static inline void product_wait(float (&)[ACCUMULATORS])
{
}

static inline float emu_tile_at(uint64_t descriptor, unsigned row, unsigned col)
{
    static float value[256];
    if (value[1] == 0) {
        for (int i = 0; i < 256; i++) {
            value[i] = fp8_decode((uint8_t)i);
        }
    }
    return value[emu_shared()[emu_swizzled(((uint32_t)descriptor << 4) + row * 128 + col)]];
}

static inline void product_step(float (&d)[ACCUMULATORS], uint64_t a, uint64_t b, int add)
{
    unsigned t = threadIdx.x % WARPGROUP, lane = t % 32;
    for (unsigned i = 0; i < ACCUMULATORS; i++) {
        unsigned row = t / 32 * 16 + lane / 4 + (i / 2 % 2) * 8;
        unsigned col = i / 4 * 8 + lane % 4 * 2 + i % 2;
        double sum = add ? d[i] : 0;
        for (unsigned k = 0; k < 32; k++) {
            sum += (double)emu_tile_at(a, row, k) * emu_tile_at(b, col, k);
        }
        d[i] = (float)sum;
    }
}

#endif
