#include "trainer/param.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "trainer/rng.h"

#define ALIGNMENT 64

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static void *take_packed(struct arena *a, size_t bytes)
{
    void *p = a->base == NULL ? NULL : a->base + a->used;
    a->used += bytes;
    assert(a->base == NULL || a->used <= a->size);
    a->size = a->used > a->size ? a->used : a->size;
    return p;
}

void *arena_take(struct arena *a, size_t bytes)
{
    return take_packed(a, aligned(bytes));
}

float *arena_floats(struct arena *a, size_t count)
{
    return arena_take(a, count * sizeof(float));
}

struct mat arena_mat(struct arena *a, size_t rows, size_t cols)
{
    return mat_of(arena_floats(a, rows * cols), rows, cols);
}

static void each_arena(struct params *p, void (*fn)(struct params *p, struct arena *a))
{
    struct param_memory *kind[] = {&p->dense, &p->expert, &p->copy};
    for (size_t i = 0; i < 3; i++) {
        fn(p, &kind[i]->weight);
        fn(p, &kind[i]->grad);
        fn(p, &kind[i]->low);
        fn(p, &kind[i]->low_dx);
    }
}

static void rewind_arena(struct params *p, struct arena *a)
{
    (void)p;
    a->used = 0;
}

static void allocate_arena(struct params *p, struct arena *a)
{
    a->base = p->op->alloc(a->size);
}

static void release_arena(struct params *p, struct arena *a)
{
    p->op->release(a->base);
}

static void align_arena(struct params *p, struct arena *a)
{
    (void)p;
    a->used = aligned(a->used);
    a->size = a->used > a->size ? a->used : a->size;
}

void params_begin(struct params *p)
{
    p->count = 0;
    each_arena(p, rewind_arena);
}

void params_allocate(struct params *p)
{
    each_arena(p, allocate_arena);
}

void params_fini(struct params *p)
{
    if (p->op != NULL) {
        each_arena(p, release_arena);
    }
    free(p->item);
    free(p->copies);
    *p = (struct params){0};
}

void params_align(struct params *p)
{
    each_arena(p, align_arena);
}

struct params_mark params_mark(const struct params *p)
{
    return (struct params_mark){p->count, p->dense, p->expert, p->copy};
}

static void rewind_memory(struct param_memory *memory, const struct param_memory *mark)
{
    memory->weight.used = mark->weight.used;
    memory->grad.used = mark->grad.used;
    memory->low.used = mark->low.used;
    memory->low_dx.used = mark->low_dx.used;
}

void params_rewind(struct params *p, const struct params_mark *mark)
{
    p->count = mark->count;
    rewind_memory(&p->dense, &mark->dense);
    rewind_memory(&p->expert, &mark->expert);
    rewind_memory(&p->copy, &mark->copy);
}

static void pad(struct param_memory *memory, uint32_t ways)
{
    size_t part = aligned((memory->weight.used + ways - 1) / ways);
    take_packed(&memory->weight, part * ways - memory->weight.used);
    take_packed(&memory->grad, part * ways - memory->grad.used);
}

void params_pad(struct params *p, uint32_t dense_ways, uint32_t expert_ways)
{
    params_align(p);
    pad(&p->dense, dense_ways);
    pad(&p->expert, expert_ways);
}

size_t params_bytes(const struct params *p)
{
    const struct param_memory *kind[] = {&p->dense, &p->expert, &p->copy};
    size_t bytes = 0;
    for (size_t i = 0; i < 3; i++) {
        bytes +=
            kind[i]->weight.size + kind[i]->grad.size + kind[i]->low.size + kind[i]->low_dx.size;
    }
    return bytes;
}

void params_zero_grad(struct params *p)
{
    const struct param_memory *kind[] = {&p->dense, &p->expert, &p->copy};
    for (size_t i = 0; i < 3; i++) {
        const struct arena *grad = &kind[i]->grad;
        if (grad->used > 0) {
            p->op->zero(mat_of((float *)(void *)grad->base, 1, grad->used / sizeof(float)));
        }
    }
}

static struct param *append(struct params *p, const char *prefix, const char *name)
{
    size_t capacity = p->capacity;
    mem_grow((void **)&p->item, &capacity, p->count + 1, sizeof *p->item);
    mem_grow((void **)&p->copies, &p->capacity, p->count + 1, sizeof *p->copies);
    p->copies[p->count] = (struct param_copies){0};
    struct param *item = &p->item[p->count++];
    *item = (struct param){.expert = -1, .copy = p->copying};
    int n = snprintf(item->name, sizeof item->name, "%s%s", prefix, name);
    assert(n > 0 && (size_t)n < sizeof item->name);
    return item;
}

static struct param_memory *memory_of(struct params *p, const struct param *item)
{
    if (item->copy) {
        return &p->copy;
    }
    return item->expert < 0 ? &p->dense : &p->expert;
}

static void place(struct params *p, struct param *item)
{
    size_t bytes = item->count * sizeof(float);
    item->weight = take_packed(&memory_of(p, item)->weight, bytes);
    item->grad = take_packed(&memory_of(p, item)->grad, bytes);
}

void params_vector(struct params *p, struct vector *v, const char *prefix, const char *name,
                   uint32_t n)
{
    params_align(p);
    struct param *item = append(p, prefix, name);
    item->rows = n;
    item->cols = 1;
    item->is_vector = true;
    item->count = n;
    place(p, item);
    *v = (struct vector){item->weight, item->grad, n};
}

/* The weight as a product of that precision has it. */
static const float *operand_of(struct params *p, const struct param *item, enum precision precision,
                               bool dgrad)
{
    if (precision == PRECISION_FP32) {
        return item->weight;
    }
    struct param_memory *memory = memory_of(p, item);
    struct param_copies *copies = &p->copies[item - p->item];
    copies->precision[dgrad] = precision;
    copies->data[dgrad] =
        take_packed(dgrad ? &memory->low_dx : &memory->low, item->count * sizeof(float));
    return copies->data[dgrad];
}

void params_linear(struct params *p, struct linear *l, enum linear_kind kind, int32_t expert,
                   const char *prefix, const char *name, uint32_t rows, uint32_t cols)
{
    struct param *item = append(p, prefix, name);
    item->rows = rows;
    item->cols = cols;
    item->count = (size_t)rows * cols;
    item->quantised = kind == LINEAR_RECIPE;
    item->expert = expert;
    place(p, item);
    enum precision fprop = PRECISION_FP32, dgrad = PRECISION_FP32;
    if (kind == LINEAR_RECIPE) {
        fprop = p->recipe.fprop;
        dgrad = p->recipe.dgrad;
    } else if (kind == LINEAR_HIGH) {
        fprop = dgrad = p->recipe.rest;
    }
    const float *operand = operand_of(p, item, fprop, false);
    const float *operand_dx = dgrad == fprop ? operand : operand_of(p, item, dgrad, true);
    if (l->parts == 0) {
        *l = (struct linear){.kind = kind,
                             .w = item->weight,
                             .grad = item->grad,
                             .operand = operand,
                             .operand_dx = operand_dx,
                             .k = cols};
    }
    assert(l->parts < 2 && l->k == cols);
    l->part[l->parts++] = rows;
    l->n += rows;
}

void params_init_weights(struct params *p, uint64_t seed, double std)
{
    for (size_t i = 0; i < p->count; i++) {
        struct param *item = &p->item[i];
        float *values = mem_alloc_array(item->count, sizeof(float));
        if (item->is_vector) {
            for (size_t j = 0; j < item->count; j++) {
                values[j] = 1;
            }
        } else {
            rng_normal(seed, rng_stream(item->name), 0, item->count, std, values);
        }
        p->op->copy_from_host(item->weight, values, item->count * sizeof(float));
        free(values);
    }
}

void params_refresh(struct params *p)
{
    for (size_t i = 0; i < 2 * p->count; i++) {
        const struct param *item = &p->item[i / 2];
        const struct param_copies *copies = &p->copies[i / 2];
        if (copies->data[i % 2] != NULL) {
            p->op->quantise(copies->precision[i % 2] == PRECISION_FP8 ? OP_FP8_BLOCK : OP_BF16,
                            (struct op_groups){0}, mat_of(item->weight, item->rows, item->cols),
                            mat_of(copies->data[i % 2], item->rows, item->cols));
        }
    }
}
