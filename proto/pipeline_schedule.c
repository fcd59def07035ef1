#include "proto/pipeline_schedule.h"

#include <assert.h>
#include <stdlib.h>

#include "lib/mem.h"

/* ---- who has what */

uint32_t pipeline_stages_here(enum pipeline_kind kind)
{
    return kind == PIPELINE_DUALPIPEV ? 2 : 1;
}

uint32_t pipeline_stages(enum pipeline_kind kind, uint32_t ranks)
{
    return ranks * pipeline_stages_here(kind);
}

uint32_t pipeline_stage(enum pipeline_kind kind, uint32_t ranks, uint32_t rank, uint32_t i)
{
    return i == 0 ? rank : pipeline_stages(kind, ranks) - 1 - rank;
}

uint32_t pipeline_rank_of(enum pipeline_kind kind, uint32_t ranks, uint32_t stage)
{
    return stage < ranks ? stage : pipeline_stages(kind, ranks) - 1 - stage;
}

uint32_t pipeline_place_of(enum pipeline_kind kind, uint32_t ranks, uint32_t stage)
{
    (void)kind;
    return stage < ranks ? 0 : 1;
}

void pipeline_layers(uint32_t n, uint32_t stages, uint32_t stage, uint32_t *first, uint32_t *count)
{
    *first = (uint32_t)((uint64_t)n * stage / stages);
    *count = (uint32_t)((uint64_t)n * (stage + 1) / stages) - *first;
}

/* ---- writing a list */

struct writer {
    struct pipeline_schedule *s;
    size_t capacity;
    uint32_t forward[PIPELINE_STAGES_MAX], backward[PIPELINE_STAGES_MAX]; /* next micro-batches */
    size_t weights; /* actions before this one have their W, or need none */
};

static void put(struct writer *w, struct pipeline_action a)
{
    mem_grow((void **)&w->s->action, &w->capacity, w->s->count + 1, sizeof a);
    w->s->action[w->s->count++] = a;
}

static void put_forward(struct writer *w, uint32_t stage)
{
    put(w, (struct pipeline_action){PIPELINE_F, stage, w->forward[stage]++, false});
}

static void put_backward(struct writer *w, uint32_t stage, bool split)
{
    put(w, (struct pipeline_action){split ? PIPELINE_I : PIPELINE_B, stage, w->backward[stage]++,
                                    false});
}

/* The oldest one that is due. */
static void put_weights(struct writer *w)
{
    while (w->s->action[w->weights].op != PIPELINE_I) {
        w->weights++;
        assert(w->weights < w->s->count);
    }
    struct pipeline_action due = w->s->action[w->weights++];
    put(w, (struct pipeline_action){PIPELINE_W, due.stage, due.micro, false});
}

static void put_joined(struct writer *w, uint32_t forward, uint32_t backward)
{
    put_forward(w, forward);
    w->s->action[w->s->count - 1].joined = true;
    put_backward(w, backward, false);
}

/* ---- the kinds */

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static void write_1f1b(struct writer *w, uint32_t ranks, uint32_t rank, uint32_t micros)
{
    uint32_t ahead = smaller(ranks - 1 - rank, micros);
    for (uint32_t i = 0; i < ahead; i++) {
        put_forward(w, 0);
    }
    for (uint32_t i = ahead; i < micros; i++) {
        put_forward(w, 0);
        put_backward(w, 0, false);
    }
    for (uint32_t i = 0; i < ahead; i++) {
        put_backward(w, 0, false);
    }
}

/* `behind` ranks are between this one and the turn of the V. */
static void fill_dualpipev(struct writer *w, uint32_t rank, uint32_t behind)
{
    for (uint32_t i = 0; i < 2 * behind; i++) {
        put_forward(w, 0);
    }
    for (uint32_t i = 0; i <= rank; i++) {
        put_forward(w, 0);
        put_forward(w, 1);
    }
    for (uint32_t i = 0; i < behind; i++) {
        put_backward(w, 1, true);
        put_weights(w);
        put_forward(w, 1);
    }
}

static void drain_dualpipev(struct writer *w, uint32_t rank, uint32_t behind)
{
    uint32_t pairs = rank + 1;
    bool split = false; /* from the middle on: there will be time for the weights at the end */
    for (uint32_t i = 0; i < behind; i++) {
        put_backward(w, 1, false);
        put_joined(w, 1, 0);
    }
    for (uint32_t i = 0; i < pairs; i++) {
        split = split || (i == pairs / 2 && rank % 2 == 1);
        put_backward(w, 1, split);
        split = split || i == pairs / 2;
        put_backward(w, 0, split);
    }
    for (uint32_t i = 0; i < behind; i++) {
        put_weights(w);
        put_backward(w, 0, true);
    }
    for (uint32_t i = 0; i < pairs; i++) {
        put_weights(w);
    }
}

static void write_dualpipev(struct writer *w, uint32_t ranks, uint32_t rank, uint32_t micros)
{
    uint32_t behind = ranks - 1 - rank;
    fill_dualpipev(w, rank, behind);
    for (uint32_t i = 0; i < micros - 2 * ranks + rank + 1; i++) {
        if (i == 0 && behind == 0) { /* at the turn the others wait for this forward pass */
            put_forward(w, 0);
            put_backward(w, 1, false);
        } else {
            put_joined(w, 0, 1);
        }
        put_joined(w, 1, 0);
    }
    drain_dualpipev(w, rank, behind);
}

uint32_t pipeline_micros_min(enum pipeline_kind kind, uint32_t ranks)
{
    return kind == PIPELINE_DUALPIPEV ? 2 * ranks : 1;
}

int pipeline_schedule_init(struct pipeline_schedule *s, enum pipeline_kind kind, uint32_t ranks,
                           uint32_t rank, uint32_t micros, struct err *err)
{
    struct writer w = {.s = s};
    *s = (struct pipeline_schedule){0};
    assert(rank < ranks);
    if (micros < pipeline_micros_min(kind, ranks)) {
        return err_set(
            err, ERR_CONFIG,
            "parallel: %u micro-batches a rank and step are too few for %s over %u ranks "
            "(at least %u: a larger global_batch or a smaller micro_batch)",
            micros, kind == PIPELINE_DUALPIPEV ? "dualpipev" : "1f1b", ranks,
            pipeline_micros_min(kind, ranks));
    }
    if (kind == PIPELINE_DUALPIPEV) {
        write_dualpipev(&w, ranks, rank, micros);
    } else {
        write_1f1b(&w, ranks, rank, micros);
    }
    return 0;
}

void pipeline_schedule_forward(struct pipeline_schedule *s, enum pipeline_kind kind, uint32_t ranks,
                               uint32_t rank, uint32_t micros)
{
    struct writer w = {.s = s};
    *s = (struct pipeline_schedule){0};
    /* In a V a rank is ahead on the way there by what is under way between its two stages. */
    uint32_t ahead = kind == PIPELINE_DUALPIPEV ? smaller(2 * (ranks - 1 - rank), micros) : 0;
    for (uint32_t i = 0; i < ahead; i++) {
        put_forward(&w, 0);
    }
    for (uint32_t i = 0; i < micros; i++) {
        if (w.forward[0] < micros) {
            put_forward(&w, 0);
        }
        if (kind == PIPELINE_DUALPIPEV) {
            put_forward(&w, 1);
        }
    }
}

void pipeline_schedule_fini(struct pipeline_schedule *s)
{
    free(s->action);
    *s = (struct pipeline_schedule){0};
}

uint32_t pipeline_schedule_peak(const struct pipeline_schedule *s, uint32_t stage)
{
    uint32_t now = 0, peak = 0;
    for (size_t i = 0; i < s->count; i++) {
        const struct pipeline_action *a = &s->action[i];
        if (stage != PIPELINE_STAGES_MAX && a->stage != stage) {
            continue;
        }
        now += a->op == PIPELINE_F;
        peak = now > peak ? now : peak;
        now -= a->op == PIPELINE_B || a->op == PIPELINE_W;
    }
    return peak;
}
