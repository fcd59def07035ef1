/* The schedules in an event simulation: what is done, in which order, how long it takes and how
 * much is kept. Exhaustive over small pipelines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "proto/pipeline_schedule.h"

enum { RANKS_MAX = 9, MICROS_MAX = 40, STAGES_MAX = 2 * RANKS_MAX };

static const char *const kinds[] = {[PIPELINE_1F1B] = "1f1b", [PIPELINE_DUALPIPEV] = "dualpipev"};

/* Times of a stage: forward, whole backward, its part for weights, a joined pair. */
struct times {
    double f, b, w, joined;
};

/* ---- the simulation */

struct sim {
    enum pipeline_kind kind;
    uint32_t ranks, micros, stages;
    struct times times;
    struct pipeline_schedule schedule[RANKS_MAX];
    size_t next[RANKS_MAX];
    double clock[RANKS_MAX], busy[RANKS_MAX];
    /* when a pass of a stage and micro-batch was over; -1: not yet */
    double forward[STAGES_MAX][MICROS_MAX], backward[STAGES_MAX][MICROS_MAX];
    double weights[STAGES_MAX][MICROS_MAX];
};

static uint32_t stage_of(const struct sim *s, uint32_t rank, const struct pipeline_action *a)
{
    return pipeline_stage(s->kind, s->ranks, rank, a->stage);
}

/* Moves *start to when all is there that an action needs; false: something is not done yet. */
static bool ready(const struct sim *s, uint32_t rank, const struct pipeline_action *a,
                  double *start)
{
    uint32_t stage = stage_of(s, rank, a);
    double needs[2] = {0, 0};
    if (a->op == PIPELINE_F && stage > 0) {
        needs[0] = s->forward[stage - 1][a->micro];
    } else if (a->op == PIPELINE_B || a->op == PIPELINE_I) {
        needs[0] = s->forward[stage][a->micro];
        needs[1] = stage + 1 < s->stages ? s->backward[stage + 1][a->micro] : 0;
    } else if (a->op == PIPELINE_W) {
        needs[0] = s->backward[stage][a->micro];
    }
    for (int i = 0; i < 2; i++) {
        if (needs[i] < 0) {
            return false;
        }
        *start = needs[i] > *start ? needs[i] : *start;
    }
    return true;
}

static void once(double *place, double end)
{
    assert_true(*place < 0); /* every pass happens once */
    *place = end;
}

static void finish(struct sim *s, uint32_t rank, const struct pipeline_action *a, double end)
{
    uint32_t stage = stage_of(s, rank, a);
    assert_true(a->micro < s->micros && stage < s->stages);
    if (a->op == PIPELINE_F) {
        once(&s->forward[stage][a->micro], end);
    } else if (a->op == PIPELINE_W) {
        once(&s->weights[stage][a->micro], end);
    } else {
        once(&s->backward[stage][a->micro], end);
        if (a->op == PIPELINE_B) {
            once(&s->weights[stage][a->micro], end);
        }
    }
}

static double duration(const struct sim *s, const struct pipeline_action *a)
{
    const struct times *t = &s->times;
    if (a->joined) {
        return t->joined;
    }
    return a->op == PIPELINE_F   ? t->f
           : a->op == PIPELINE_B ? t->b
           : a->op == PIPELINE_W ? t->w
                                 : t->b - t->w;
}

/* Runs what this rank can; whether that was anything. */
static bool advance(struct sim *s, uint32_t rank)
{
    const struct pipeline_schedule *list = &s->schedule[rank];
    bool moved = false;
    while (s->next[rank] < list->count) {
        const struct pipeline_action *a = &list->action[s->next[rank]];
        size_t parts = a->joined ? 2 : 1;
        double start = s->clock[rank];
        assert_true(!a->joined || (a->op == PIPELINE_F && a[1].op == PIPELINE_B && !a[1].joined));
        if (!ready(s, rank, a, &start) || (parts == 2 && !ready(s, rank, a + 1, &start))) {
            return moved;
        }
        double end = start + duration(s, a);
        for (size_t i = 0; i < parts; i++) {
            finish(s, rank, a + i, end);
        }
        s->busy[rank] += duration(s, a);
        s->clock[rank] = end;
        s->next[rank] += parts;
        moved = true;
    }
    return moved;
}

static void forget(struct sim *s)
{
    for (uint32_t i = 0; i < STAGES_MAX; i++) {
        for (uint32_t m = 0; m < MICROS_MAX; m++) {
            s->forward[i][m] = s->backward[i][m] = s->weights[i][m] = -1;
        }
    }
}

/* Until nobody can go on. */
static void play(struct sim *s)
{
    for (bool moved = true; moved;) {
        moved = false;
        for (uint32_t r = 0; r < s->ranks; r++) {
            moved = advance(s, r) || moved;
        }
    }
    for (uint32_t r = 0; r < s->ranks; r++) {
        if (s->next[r] != s->schedule[r].count) {
            fail_msg("deadlock: %s, %u ranks, %u micro-batches: rank %u stops at action %zu",
                     kinds[s->kind], s->ranks, s->micros, r, s->next[r]);
        }
    }
}

static void sim_run(struct sim *s, enum pipeline_kind kind, uint32_t ranks, uint32_t micros,
                    struct times times)
{
    *s = (struct sim){.kind = kind, .ranks = ranks, .micros = micros, .times = times};
    s->stages = pipeline_stages(kind, ranks);
    forget(s);
    for (uint32_t r = 0; r < ranks; r++) {
        assert_int_equal(pipeline_schedule_init(&s->schedule[r], kind, ranks, r, micros, NULL), 0);
    }
    play(s);
}

static void sim_fini(struct sim *s)
{
    for (uint32_t r = 0; r < s->ranks; r++) {
        pipeline_schedule_fini(&s->schedule[r]);
    }
}

/* How long a rank idles until the last is done. */
static double bubble(const struct sim *s, uint32_t rank)
{
    double end = 0;
    for (uint32_t r = 0; r < s->ranks; r++) {
        end = s->clock[r] > end ? s->clock[r] : end;
    }
    return end - s->busy[rank];
}

/* Calls body for every schedule that is accepted. */
static void each(void (*body)(enum pipeline_kind kind, uint32_t ranks, uint32_t micros))
{
    for (enum pipeline_kind kind = PIPELINE_1F1B; kind <= PIPELINE_DUALPIPEV; kind++) {
        for (uint32_t ranks = 1; ranks <= RANKS_MAX; ranks++) {
            for (uint32_t m = pipeline_micros_min(kind, ranks); m <= MICROS_MAX; m++) {
                body(kind, ranks, m);
            }
        }
    }
}

/* ---- */

static void check_complete(enum pipeline_kind kind, uint32_t ranks, uint32_t micros)
{
    struct sim *s = mem_alloc(sizeof *s);
    sim_run(s, kind, ranks, micros, (struct times){1, 2, 1, 3});
    for (uint32_t i = 0; i < s->stages; i++) {
        for (uint32_t m = 0; m < micros; m++) {
            assert_true(s->forward[i][m] > 0 && s->backward[i][m] > 0 && s->weights[i][m] > 0);
        }
    }
    sim_fini(s);
    free(s);
}

/* Every micro-batch goes once forward and once backward through every stage, split or not, whatever
 * it needs being done before; no schedule ends in a deadlock. */
static void test_complete(void **state)
{
    (void)state;
    each(check_complete);
}

static void check_slots(enum pipeline_kind kind, uint32_t ranks, uint32_t micros)
{
    for (uint32_t r = 0; r < ranks; r++) {
        struct pipeline_schedule s;
        uint32_t begun[2] = {0}, over[2] = {0};
        assert_int_equal(pipeline_schedule_init(&s, kind, ranks, r, micros, NULL), 0);
        for (size_t i = 0; i < s.count; i++) {
            const struct pipeline_action *a = &s.action[i];
            if (a->op == PIPELINE_F) {
                assert_int_equal(a->micro, begun[a->stage]++);
                assert_true(begun[a->stage] - over[a->stage] <=
                            pipeline_schedule_peak(&s, a->stage));
            } else if (a->op != PIPELINE_I) {
                assert_int_equal(a->micro, over[a->stage]++);
            }
        }
        pipeline_schedule_fini(&s);
    }
}

/* A stage begins and ends micro-batches in their order, so that the slot of a micro-batch is its
 * number modulo the peak. */
static void test_slots(void **state)
{
    (void)state;
    each(check_slots);
}

static void check_peak(enum pipeline_kind kind, uint32_t ranks, uint32_t micros)
{
    for (uint32_t r = 0; r < ranks; r++) {
        struct pipeline_schedule s;
        assert_int_equal(pipeline_schedule_init(&s, kind, ranks, r, micros, NULL), 0);
        uint32_t peak = pipeline_schedule_peak(&s, PIPELINE_STAGES_MAX);
        if (kind == PIPELINE_1F1B) {
            assert_int_equal(peak, micros < ranks - r ? micros : ranks - r);
        } else {
            assert_int_equal(peak, 2 * ranks + 1);
        }
        pipeline_schedule_fini(&s);
    }
}

/* Activations at once are what the literature says: 1F1B as many micro-batches as there are ranks
 * from here on, DualPipeV PP + 1 passes of stages, PP = 2P. */
static void test_peak(void **state)
{
    (void)state;
    each(check_peak);
}

static void check_peak_grows(enum pipeline_kind kind, uint32_t ranks, uint32_t micros)
{
    if (micros == pipeline_micros_min(kind, ranks)) {
        return;
    }
    for (uint32_t r = 0; r < ranks; r++) {
        struct pipeline_schedule fewer, more;
        assert_int_equal(pipeline_schedule_init(&fewer, kind, ranks, r, micros - 1, NULL), 0);
        assert_int_equal(pipeline_schedule_init(&more, kind, ranks, r, micros, NULL), 0);
        for (uint32_t i = 0; i < pipeline_stages_here(kind); i++) {
            assert_true(pipeline_schedule_peak(&fewer, i) <= pipeline_schedule_peak(&more, i));
        }
        pipeline_schedule_fini(&fewer);
        pipeline_schedule_fini(&more);
    }
}

/* Slots for the largest number of micro-batches are enough for any smaller one. */
static void test_peak_grows(void **state)
{
    (void)state;
    each(check_peak_grows);
}

static void check_bubble_1f1b(uint32_t ranks, uint32_t micros, struct times t)
{
    struct sim *s = mem_alloc(sizeof *s);
    sim_run(s, PIPELINE_1F1B, ranks, micros, t);
    for (uint32_t r = 0; r < ranks; r++) {
        assert_true(bubble(s, r) == (ranks - 1) * (t.f + t.b));
    }
    sim_fini(s);
    free(s);
}

/* 1F1B: every rank idles (P - 1)(F + B), for any times and any number of micro-batches. */
static void test_bubble_1f1b(void **state)
{
    (void)state;
    static const struct times times[] = {{1, 2, 1, 3}, {3, 3, 1, 0}, {5, 1, 0, 0}, {7, 16, 8, 0}};
    for (uint32_t ranks = 1; ranks <= RANKS_MAX; ranks++) {
        for (uint32_t m = 1; m <= MICROS_MAX; m++) {
            for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
                check_bubble_1f1b(ranks, m, times[i]);
            }
        }
    }
}

static void check_bubble_dualpipev(uint32_t ranks, uint32_t micros, struct times t)
{
    struct sim *s = mem_alloc(sizeof *s);
    uint32_t pp = 2 * ranks;
    double formula = (pp / 2 - 1) * (t.joined + t.b - 3 * t.w);
    sim_run(s, PIPELINE_DUALPIPEV, ranks, micros, t);
    for (uint32_t r = 0; r < ranks; r++) {
        bool longest = t.joined == t.f + t.b || r + 2 >= ranks;
        assert_true(longest ? bubble(s, r) == formula : bubble(s, r) <= formula);
    }
    sim_fini(s);
    free(s);
}

/* DualPipeV: (PP/2 - 1)(F&B + B - 3W) with PP = 2P stages and F = W = B - W: on every rank when
 * joining saves nothing, else on those that idle longest. */
static void test_bubble_dualpipev(void **state)
{
    (void)state;
    static const struct times times[] = {
        {1, 2, 1, 3}, {1, 2, 1, 2.5}, {4, 8, 4, 8.5}, {2, 4, 2, 4}};
    for (uint32_t ranks = 1; ranks <= RANKS_MAX; ranks++) {
        for (uint32_t m = 2 * ranks; m <= MICROS_MAX; m++) {
            for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
                check_bubble_dualpipev(ranks, m, times[i]);
            }
        }
    }
}

/* With as many ranks and micro-batches, and a stage half as long because there are twice as many,
 * DualPipeV idles less than 1F1B. */
static void test_less_idle(void **state)
{
    (void)state;
    for (uint32_t ranks = 2; ranks <= RANKS_MAX; ranks++) {
        struct sim *one = mem_alloc(sizeof *one);
        struct sim *two = mem_alloc(sizeof *two);
        sim_run(one, PIPELINE_1F1B, ranks, 4 * ranks, (struct times){2, 4, 2, 6});
        sim_run(two, PIPELINE_DUALPIPEV, ranks, 4 * ranks, (struct times){1, 2, 1, 3});
        for (uint32_t r = 0; r < ranks; r++) {
            assert_true(one->busy[r] == two->busy[r]);
            assert_true(bubble(two, r) < bubble(one, r));
        }
        sim_fini(one);
        sim_fini(two);
        free(one);
        free(two);
    }
}

/* Validation: every micro-batch forward once through every stage, without deadlock. */
static void test_forward(void **state)
{
    (void)state;
    for (enum pipeline_kind kind = PIPELINE_1F1B; kind <= PIPELINE_DUALPIPEV; kind++) {
        for (uint32_t ranks = 1; ranks <= RANKS_MAX; ranks++) {
            for (uint32_t micros = 0; micros <= MICROS_MAX; micros++) {
                struct sim *s = mem_alloc(sizeof *s);
                *s = (struct sim){
                    .kind = kind, .ranks = ranks, .micros = micros, .times = {1, 2, 1, 3}};
                s->stages = pipeline_stages(kind, ranks);
                forget(s);
                for (uint32_t r = 0; r < ranks; r++) {
                    pipeline_schedule_forward(&s->schedule[r], kind, ranks, r, micros);
                }
                play(s);
                for (uint32_t i = 0; i < s->stages * micros; i++) {
                    assert_true(s->forward[i / micros][i % micros] > 0);
                }
                sim_fini(s);
                free(s);
            }
        }
    }
}

/* Who has which stage: each exactly one, first and last on rank 0 in a V, neighbours of the model
 * neighbours in the pipeline; layers are dealt whole, in order, none left out and no stage empty.
 */
static void test_places(void **state)
{
    (void)state;
    for (enum pipeline_kind kind = PIPELINE_1F1B; kind <= PIPELINE_DUALPIPEV; kind++) {
        for (uint32_t ranks = 1; ranks <= RANKS_MAX; ranks++) {
            uint32_t stages = pipeline_stages(kind, ranks), before = 0;
            assert_int_equal(stages, ranks * pipeline_stages_here(kind));
            for (uint32_t s = 0; s < stages; s++) {
                uint32_t rank = pipeline_rank_of(kind, ranks, s);
                assert_true(rank < ranks && labs((long)rank - (long)before) <= 1);
                assert_int_equal(
                    pipeline_stage(kind, ranks, rank, pipeline_place_of(kind, ranks, s)), s);
                before = rank;
            }
            assert_int_equal(before, kind == PIPELINE_DUALPIPEV ? 0 : ranks - 1);
            for (uint32_t n = stages; n < stages + 70; n++) {
                uint32_t at = 0;
                for (uint32_t s = 0; s < stages; s++) {
                    uint32_t first, count;
                    pipeline_layers(n, stages, s, &first, &count);
                    assert_true(first == at && count >= n / stages && count <= n / stages + 1);
                    at += count;
                }
                assert_int_equal(at, n);
            }
        }
    }
}

/* DualPipeV says how many micro-batches it needs. */
static void test_too_few(void **state)
{
    (void)state;
    struct pipeline_schedule s;
    struct err err = {0};
    assert_int_equal(pipeline_schedule_init(&s, PIPELINE_DUALPIPEV, 4, 1, 7, &err), ERR_CONFIG);
    assert_non_null(strstr(err.text, "7 micro-batches"));
    assert_non_null(strstr(err.text, "at least 8"));
    assert_int_equal(s.count, 0);
    assert_int_equal(pipeline_schedule_init(&s, PIPELINE_1F1B, 4, 1, 0, NULL), ERR_CONFIG);
    pipeline_schedule_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_complete),    cmocka_unit_test(test_slots),
        cmocka_unit_test(test_peak),        cmocka_unit_test(test_peak_grows),
        cmocka_unit_test(test_bubble_1f1b), cmocka_unit_test(test_bubble_dualpipev),
        cmocka_unit_test(test_less_idle),   cmocka_unit_test(test_forward),
        cmocka_unit_test(test_places),      cmocka_unit_test(test_too_few),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
