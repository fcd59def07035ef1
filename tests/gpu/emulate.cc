/* Blocks run one after the other in one thread. A fiber that must wait goes back to the loop below;
 * the loop lets a barrier go once all who belong to it wait there. */
#include "tests/gpu/emulate.hh"

#include <setjmp.h>
#include <stdio.h>
#include <ucontext.h>

#include <algorithm>
#include <random>
#include <vector>

emu_thread_view emu_now;

namespace
{
constexpr size_t STACK = 128 << 10;
constexpr unsigned IDLE_ROUNDS = 100000; /* of polling without anybody getting on: a deadlock */

enum class Wait { none, block, warp, named, poll, done };

struct Fiber {
    ucontext_t context; /* to begin with */
    jmp_buf place;      /* to go on from: without the system calls of swapcontext */
    bool begun;
    uint3 index;
    unsigned number;
    Wait wait;
    unsigned barrier, barrier_threads;
    uint64_t given;
    int vote;
};

std::vector<Fiber> fibers;
std::vector<char *> stacks;
std::vector<unsigned char> dynamic_shared;
const std::function<void()> *body;
jmp_buf loop;
Fiber *running;
std::mt19937 order(1);

[[noreturn]] void fail(const char *what)
{
    fprintf(stderr, "emulated block (%u, %u): %s\n", emu_now.block.x, emu_now.block.y, what);
    abort();
}

void enter()
{
    (*body)();
    running->wait = Wait::done;
    _longjmp(loop, 1);
}

/* Runs a fiber until it waits or is done. */
__attribute__((noinline)) void resume(Fiber *f)
{
    if (_setjmp(loop) != 0) {
        return;
    }
    if (f->begun) {
        _longjmp(f->place, 1);
    }
    f->begun = true;
    setcontext(&f->context);
}

void wait_for(Wait what)
{
    Fiber *self = running;
    self->wait = what;
    if (_setjmp(self->place) == 0) {
        _longjmp(loop, 1);
    }
}

/* Those of fibers [first, last) that wait for `what` go on if all that are not done do. */
bool release(Wait what, size_t first, size_t last)
{
    size_t waiting = 0, done = 0;
    for (size_t i = first; i < last; i++) {
        waiting += fibers[i].wait == what;
        done += fibers[i].wait == Wait::done;
    }
    if (waiting == 0 || waiting + done < last - first) {
        return false;
    }
    if (what == Wait::warp && done > 0) {
        fail("a thread left before a shuffle of its warp");
    }
    for (size_t i = first; i < last; i++) {
        if (fibers[i].wait == what) {
            fibers[i].wait = Wait::none;
        }
    }
    return true;
}

bool release_named()
{
    bool any = false;
    for (unsigned id = 0; id < 16; id++) {
        unsigned waiting = 0, needed = 0;
        for (const Fiber &f : fibers) {
            if (f.wait == Wait::named && f.barrier == id) {
                waiting++;
                needed = f.barrier_threads;
            }
        }
        if (waiting == 0 || waiting < needed) {
            continue;
        }
        any = true;
        for (Fiber &f : fibers) {
            if (f.wait == Wait::named && f.barrier == id) {
                f.wait = Wait::none;
            }
        }
    }
    return any;
}

bool release_all()
{
    bool any = release(Wait::block, 0, fibers.size());
    for (size_t w = 0; w < fibers.size(); w += 32) {
        any = release(Wait::warp, w, std::min(w + 32, fibers.size())) || any;
    }
    return release_named() || any;
}

void start_fibers(dim3 block)
{
    unsigned count = block.x * block.y * block.z;
    fibers.resize(count);
    while (stacks.size() < count) {
        stacks.push_back((char *)malloc(STACK));
    }
    for (unsigned i = 0; i < count; i++) {
        Fiber &f = fibers[i];
        f.index = uint3{i % block.x, i / block.x % block.y, i / (block.x * block.y)};
        f.number = i;
        f.wait = Wait::none;
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = stacks[i];
        f.context.uc_stack.ss_size = STACK;
        f.begun = false;
        makecontext(&f.context, enter, 0);
    }
}

void run_block()
{
    std::vector<unsigned> turn(fibers.size());
    for (unsigned i = 0; i < turn.size(); i++) {
        turn[i] = i;
    }
    unsigned idle = 0;
    for (;;) {
        std::shuffle(turn.begin(), turn.end(), order);
        bool alive = false, ran = false, polled = false;
        for (unsigned i : turn) {
            Fiber &f = fibers[i];
            alive = alive || f.wait != Wait::done;
            if (f.wait != Wait::none && f.wait != Wait::poll) {
                continue;
            }
            polled = polled || f.wait == Wait::poll;
            running = &f;
            emu_now.thread = f.index;
            f.wait = Wait::none;
            resume(&f);
            ran = ran || f.wait != Wait::poll;
        }
        if (!alive) {
            return;
        }
        bool released = release_all();
        idle = ran || released ? 0 : idle + 1;
        if (idle > 0 && (!polled || idle > IDLE_ROUNDS)) {
            fail("its threads wait for each other for ever");
        }
    }
}
} // namespace

void emu_block_barrier(void)
{
    wait_for(Wait::block);
}

void emu_warp_barrier(void)
{
    wait_for(Wait::warp);
}

void emu_yield(void)
{
    wait_for(Wait::poll);
}

void emu_named_barrier(unsigned id, unsigned threads)
{
    running->barrier = id;
    running->barrier_threads = threads;
    wait_for(Wait::named);
}

int emu_block_any(int predicate)
{
    running->vote = predicate != 0;
    wait_for(Wait::block);
    int any = 0;
    for (const Fiber &f : fibers) {
        any |= f.wait != Wait::done && f.vote;
    }
    wait_for(Wait::block);
    return any;
}

uint64_t emu_exchange(uint64_t mine, unsigned from)
{
    Fiber *self = running;
    self->given = mine;
    wait_for(Wait::warp);
    uint64_t theirs = fibers[self->number / 32 * 32 + from].given;
    wait_for(Wait::warp);
    return theirs;
}

unsigned char *emu_shared(void)
{
    uintptr_t p = (uintptr_t)dynamic_shared.data();
    return (unsigned char *)((p + 1023) / 1024 * 1024);
}

void emu_launch(const std::function<void()> &kernel, dim3 grid, dim3 block, size_t shared)
{
    if (grid.x == 0 || grid.y == 0 || grid.y > 65535 || block.x * block.y * block.z > 1024 ||
        block.x == 0 || shared > (227 << 10)) {
        fail("no such grid, block or amount of shared memory on a GPU");
    }
    dynamic_shared.resize(shared + 1024);
    body = &kernel;
    emu_now.grid_dim = grid;
    emu_now.block_dim = block;
    for (unsigned y = 0; y < grid.y; y++) {
        for (unsigned x = 0; x < grid.x; x++) {
            emu_now.block = uint3{x, y, 0};
            start_fibers(block);
            run_block();
        }
    }
}

/* ---- trainer/cuda/tensor_map.h */
#define WARPGROUP    128
#define ACCUMULATORS 64
#include "trainer/cuda/tensor_map.h"
#include "tests/gpu/emulate_hopper.hh"

int tensor_map_make(struct tensor_map *map, const void *data, uint64_t rows, uint64_t cols,
                    uint32_t box_rows)
{
    map->opaque[EMU_DATA] = (uintptr_t)data;
    map->opaque[EMU_ROWS] = rows;
    map->opaque[EMU_COLS] = cols;
    map->opaque[EMU_BOX] = box_rows;
    return (uintptr_t)data % 16 != 0 || cols % 16 != 0;
}
