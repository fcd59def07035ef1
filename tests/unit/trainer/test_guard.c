/* The ladder on made-up losses. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "lib/file.h"
#include "lib/mem.h"
#include "trainer/guard_file.h"

#define LAYOUT "one machine"

static struct guard_sample sample(uint64_t step, double loss)
{
    return (struct guard_sample){.step = step, .loss = loss, .mtp_loss = NAN, .grad_norm = 1};
}

static void add(struct guard_history *h, const struct guard_decision *d)
{
    h->item = mem_resize(h->item, (h->count + 1) * sizeof *h->item);
    h->item[h->count++] = *d;
}

/* A run in small: its "model" is the state, checkpoints are copies. */
struct run {
    struct guard_spec spec;
    struct guard_history history;
    struct guard_state state, saved[3000];
    uint64_t step, epoch, skipped;
    double noise[3000];
    uint64_t bad_from, bad_until; /* positions in the data */
    double bad;                   /* added there */
    double bad_below_rate;        /* not at rates lower than this */
};

static void begin(struct run *r, unsigned seed)
{
    memset(r, 0, sizeof *r); /* too large for a compound literal on the stack */
    r->spec = guard_spec_default();
    r->epoch = 1;
    srand(seed);
    for (size_t i = 0; i < 3000; i++) {
        r->noise[i] = rand() % 1000 / 5000.0;
    }
}

static double loss_at(const struct run *r, uint64_t position)
{
    bool bad = position >= r->bad_from && position < r->bad_until &&
               guard_lr_factor(&r->state, r->step + 1) > r->bad_below_rate;
    return 2 + r->noise[position % 3000] + (bad ? r->bad : 0);
}

/* Goes on until a decision or the last step. */
static enum guard_action go(struct run *r, uint64_t last, struct guard_decision *d)
{
    while (r->step < last) {
        struct guard_sample s = sample(r->step + 1, loss_at(r, r->step + r->skipped));
        enum guard_action a = guard_step(&r->spec, &r->history, &r->state, &s, r->epoch, LAYOUT, d);
        if (a != GUARD_GO_ON) {
            add(&r->history, d);
            return a;
        }
        r->saved[++r->step] = r->state;
    }
    return GUARD_GO_ON;
}

/* The next attempt, from that step's checkpoint. */
static void restart(struct run *r, uint64_t step)
{
    r->epoch++;
    r->step = step;
    r->state = r->saved[step];
    r->skipped += guard_take_over(&r->history, &r->state, step);
}

static unsigned new_seed(void)
{
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    return seed;
}

/* Losses that wander within the limit never trigger; a single one above it neither. */
static void test_calm(void **state)
{
    (void)state;
    struct run *r = mem_alloc(sizeof *r);
    struct guard_decision d;
    begin(r, new_seed());
    r->bad = 1.5;
    for (int round = 0; round < 20; round++) {
        begin(r, (unsigned)rand());
        r->bad = 1.5;
        r->bad_from = 200 + (uint64_t)(rand() % 500);
        r->bad_until = r->bad_from + (uint64_t)(rand() % 20); /* at most 19 */
        assert_int_equal(go(r, 1500, &d), GUARD_GO_ON);
        assert_int_equal(r->state.count, 100);
        assert_int_equal(r->state.above, 0);
    }
    free(r);
}

/* Twenty steps in a row over the limit: replay, then back and past it; the run then ends. */
static void test_drift_is_passed_over(void **state)
{
    (void)state;
    struct run *r = mem_alloc(sizeof *r);
    srand(new_seed());
    for (int round = 0; round < 20; round++) {
        struct guard_decision d;
        begin(r, (unsigned)rand());
        r->bad = 1 + rand() % 100 / 50.0;
        r->bad_from = 150 + (uint64_t)(rand() % 500);
        r->bad_until = r->bad_from + 20 + (uint64_t)(rand() % 100);
        uint64_t at = r->bad_from + 20; /* step of the twentieth */
        assert_int_equal(go(r, 2000, &d), GUARD_REPLAY);
        assert_int_equal(d.step, at);
        assert_int_equal(d.trigger, GUARD_DRIFT);
        restart(r, at - 1 - (uint64_t)(rand() % 40));
        assert_non_null(guard_replaying(&r->history));
        assert_int_equal(go(r, 2000, &d), GUARD_ROLLBACK);
        assert_int_equal(d.step, at);
        assert_int_equal(d.back_to, at - 100);
        assert_true(guard_gave_up(&r->history, 1, at - 99));
        assert_false(guard_gave_up(&r->history, 1, at - 100));
        assert_false(guard_gave_up(&r->history, 2, at + 5));
        restart(r, d.back_to);
        assert_int_equal(r->skipped, 300);
        assert_int_equal(go(r, 2000, &d), GUARD_GO_ON);
        assert_int_equal(r->history.count, 2);
        guard_history_fini(&r->history);
    }
    free(r);
}

/* The checkpoint it can go back to is much older: what made it jump does not come again. */
static void test_old_checkpoint(void **state)
{
    (void)state;
    struct run *r = mem_alloc(sizeof *r);
    struct guard_decision d;
    begin(r, new_seed());
    r->bad_from = 900;
    r->bad_until = 905;
    r->bad = 15;
    assert_int_equal(go(r, 2000, &d), GUARD_REPLAY);
    restart(r, 200);
    assert_int_equal(go(r, 2000, &d), GUARD_ROLLBACK);
    assert_true(d.back_to - 200 > d.skip);
    restart(r, 200);
    assert_int_equal(r->skipped, 801 + 300 - 200);
    assert_int_equal(go(r, 2000, &d), GUARD_GO_ON);
    r->spec.skip = 0; /* asked for */
    r->history.item[1].skip = 0;
    r->skipped = 0;
    restart(r, 200);
    assert_int_equal(r->skipped, 0);
    guard_history_fini(&r->history);
    free(r);
}

/* One that neither replay nor other data mends: a lower rate, for 500 steps; else hold. */
static void test_whole_ladder(void **state)
{
    (void)state;
    struct run *r = mem_alloc(sizeof *r);
    unsigned seed = new_seed();
    for (int helps = 0; helps < 2; helps++) {
        static const enum guard_action ladder[] = {GUARD_REPLAY, GUARD_ROLLBACK, GUARD_LOWER};
        struct guard_decision d;
        begin(r, seed);
        r->bad = 50;
        r->bad_from = 300;
        r->bad_until = 1300;
        r->bad_below_rate = helps ? 0.8 : 0;
        for (int i = 0; i < 3; i++) {
            assert_int_equal(go(r, 2000, &d), ladder[i]);
            assert_int_equal(d.trigger, GUARD_JUMP);
            restart(r, i == 0 ? d.step - 1 : d.back_to > 250 ? 250 : d.back_to);
        }
        uint64_t from = r->step;
        assert_true(guard_lr_factor(&r->state, from + 1) == 0.7);
        assert_true(guard_lr_factor(&r->state, from + 500) == 0.7);
        assert_true(guard_lr_factor(&r->state, from + 501) == 1);
        assert_int_equal(go(r, from + 400, &d), helps ? GUARD_GO_ON : GUARD_HOLD);
        guard_history_fini(&r->history);
    }
    free(r);
}

/* Rungs of long ago, and those before a person looked, do not count. */
static void test_forgets(void **state)
{
    (void)state;
    struct guard_spec spec = guard_spec_default();
    struct guard_state s = {0};
    struct guard_history h = {0};
    struct guard_decision d = {.action = GUARD_ROLLBACK, .step = 500, .layout = LAYOUT};
    add(&h, &d);
    struct guard_sample bad = sample(1499, INFINITY);
    assert_int_equal(guard_step(&spec, &h, &s, &bad, 1, LAYOUT, &d), GUARD_ROLLBACK);
    bad.step = 1500;
    assert_int_equal(guard_step(&spec, &h, &s, &bad, 1, LAYOUT, &d), GUARD_REPLAY);
    d.action = GUARD_HOLD;
    add(&h, &d);
    bad.step = 600;
    assert_int_equal(guard_step(&spec, &h, &s, &bad, 1, LAYOUT, &d), GUARD_REPLAY);
    guard_history_fini(&h);
}

/* A replay must repeat the numbers to the bit, on the same layout. */
static void test_replay(void **state)
{
    (void)state;
    struct guard_spec spec = guard_spec_default();
    struct guard_state s = {0};
    struct guard_history h = {0};
    struct guard_decision d;
    struct guard_sample bad = sample(50, NAN);
    assert_int_equal(guard_step(&spec, &h, &s, &bad, 1, LAYOUT, &d), GUARD_REPLAY);
    add(&h, &d);
    assert_int_equal(guard_step(&spec, &h, &s, &bad, 2, LAYOUT, &d), GUARD_ROLLBACK);
    struct guard_sample good = sample(50, 2);
    assert_int_equal(guard_step(&spec, &h, &s, &good, 2, LAYOUT, &d), GUARD_CORRUPT);
    assert_int_equal(guard_step(&spec, &h, &s, &good, 2, "other", &d), GUARD_GO_ON);
    bad.grad_norm = nextafter(1, 2);
    assert_int_equal(guard_step(&spec, &h, &s, &bad, 2, LAYOUT, &d), GUARD_CORRUPT);
    bad = sample(49, NAN); /* earlier than before */
    assert_int_equal(guard_step(&spec, &h, &s, &bad, 2, LAYOUT, &d), GUARD_CORRUPT);
    good.step = 49;
    assert_int_equal(guard_step(&spec, &h, &s, &good, 2, LAYOUT, &d), GUARD_GO_ON);
    good.step = 51;
    assert_int_equal(guard_step(&spec, &h, &s, &good, 2, LAYOUT, &d), GUARD_GO_ON);
    guard_history_fini(&h);
}

static void test_early_steps(void **state)
{
    (void)state;
    struct guard_spec spec = guard_spec_default();
    struct guard_history h = {0};
    struct guard_decision d;
    struct guard_state s = {0};
    for (uint64_t step = 1; step <= 20; step++) { /* no median yet */
        struct guard_sample x = sample(step, step % 2 ? 1 : 100);
        assert_int_equal(guard_step(&spec, &h, &s, &x, 1, LAYOUT, &d), GUARD_GO_ON);
    }
    struct guard_sample x = sample(21, 252.5);
    assert_int_equal(guard_step(&spec, &h, &s, &x, 1, LAYOUT, &d), GUARD_GO_ON);
    x = sample(22, 600);
    assert_int_equal(guard_step(&spec, &h, &s, &x, 1, LAYOUT, &d), GUARD_REPLAY);
    spec.grad_limit = 10;
    x = sample(22, 2);
    x.grad_norm = 11;
    assert_int_equal(guard_step(&spec, &h, &s, &x, 1, LAYOUT, &d), GUARD_REPLAY);
    x.grad_norm = NAN;
    assert_int_equal(guard_step(&spec, &h, &s, &x, 1, LAYOUT, &d), GUARD_REPLAY);
    assert_int_equal(d.trigger, GUARD_NOT_FINITE);
}

/* ---- text */

static void test_state_text(void **state)
{
    (void)state;
    srand(new_seed());
    for (int round = 0; round < 100; round++) {
        struct guard_state s = {.above = (uint32_t)rand(),
                                .applied = (uint32_t)rand(),
                                .lr_factor = rand() % 1000 / 1000.0,
                                .lr_until = (uint64_t)rand()};
        struct guard_state back;
        s.count = (uint32_t)rand() % (GUARD_WINDOW_MAX + 1);
        for (uint32_t i = 0; i < s.count; i++) {
            s.loss[i] = rand() / 1234567.0;
        }
        char *text = guard_state_encode(&s);
        assert_int_equal(guard_state_parse(&back, text, "x", NULL), 0);
        assert_memory_equal(&back, &s, sizeof s);
        text[(size_t)rand() % strlen(text)] = '{';
        struct err err = {0};
        if (guard_state_parse(&back, text, "x", &err) != 0) {
            assert_int_equal(err.code, ERR_CORRUPT);
        }
        free(text);
    }
}

static void test_file(void **state)
{
    (void)state;
    char dir[64] = "/tmp/test_guard.XXXXXX";
    char path[100];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/guard.jsonl", dir);
    struct guard_history h;
    assert_int_equal(guard_history_read(&h, dir, NULL), 0);
    assert_int_equal(h.count, 0);
    struct guard_decision d = {.action = GUARD_LOWER,
                               .epoch = 3,
                               .step = 70,
                               .loss = INFINITY,
                               .mtp_loss = NAN,
                               .grad_norm = 0.1 + 0.2,
                               .back_to = 60,
                               .skip = 5,
                               .lr_factor = 0.7,
                               .lr_steps = 9,
                               .layout = LAYOUT};
    assert_int_equal(guard_history_add(dir, &d, NULL), 0);
    d.action = GUARD_HOLD;
    assert_int_equal(guard_history_add(dir, &d, NULL), 0);
    FILE *f = fopen(path, "a");
    fputs("{\"action\": \"ro", f); /* cut */
    fclose(f);
    assert_int_equal(guard_history_read(&h, dir, NULL), 0);
    assert_int_equal(h.count, 2);
    assert_int_equal(h.item[0].action, GUARD_LOWER);
    assert_int_equal(h.item[1].action, GUARD_HOLD);
    assert_true(isinf(h.item[0].loss) && isnan(h.item[0].mtp_loss));
    assert_true(h.item[0].grad_norm == d.grad_norm && h.item[0].lr_factor == 0.7);
    assert_true(h.item[0].epoch == 3 && h.item[0].step == 70 && h.item[0].back_to == 60);
    assert_true(h.item[0].skip == 5 && h.item[0].lr_steps == 9);
    assert_string_equal(h.item[0].layout, LAYOUT);
    guard_history_fini(&h);
    f = fopen(path, "a");
    fputs("\n", f);
    fclose(f);
    struct err err = {0};
    assert_int_equal(guard_history_read(&h, dir, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.text, "guard.jsonl:3:"));
    file_remove_tree(dir, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calm),           cmocka_unit_test(test_drift_is_passed_over),
        cmocka_unit_test(test_old_checkpoint), cmocka_unit_test(test_whole_ladder),
        cmocka_unit_test(test_forgets),        cmocka_unit_test(test_replay),
        cmocka_unit_test(test_early_steps),    cmocka_unit_test(test_state_text),
        cmocka_unit_test(test_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
