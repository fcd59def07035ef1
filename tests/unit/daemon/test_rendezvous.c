#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/rendezvous.h"
#include "lib/mem.h"
#include "tests/unit/random.h"

/* What the waiters were told, in order. */
static struct {
    uint64_t waiter;
    int code;
    char value[64];
} answers[4096];
static size_t answer_count;

static void on_answer(void *world, uint64_t waiter, int code, const void *value, size_t len)
{
    (void)world;
    answers[answer_count].waiter = waiter;
    answers[answer_count].code = code;
    memset(answers[answer_count].value, 0, sizeof answers[0].value);
    if (code == 0) {
        memcpy(answers[answer_count].value, value, len);
    }
    answer_count++;
}

static int setup(void **state)
{
    answer_count = 0;
    *state = rendezvous_create(on_answer, NULL);
    return 0;
}

static int teardown(void **state)
{
    rendezvous_destroy(*state);
    return 0;
}

static void set(struct rendezvous *r, uint64_t job, uint64_t epoch, const char *key,
                const char *value)
{
    struct err err = {0};
    assert_int_equal(rendezvous_set(r, job, epoch, key, value, strlen(value), &err), 0);
}

static const char *get(struct rendezvous *r, uint64_t job, uint64_t epoch, const char *key)
{
    static char text[64];
    size_t len;
    const void *value = rendezvous_get(r, job, epoch, key, &len);
    if (value == NULL) {
        return NULL;
    }
    snprintf(text, sizeof text, "%.*s", (int)len, (const char *)value);
    return text;
}

/* A value is found under exactly its job, epoch and key. */
static void test_set_and_get(void **state)
{
    struct rendezvous *r = *state;
    set(r, 1, 2, "rank0", "here");
    assert_string_equal(get(r, 1, 2, "rank0"), "here");
    assert_null(get(r, 1, 2, "rank1"));
    assert_null(get(r, 1, 3, "rank0"));
    assert_null(get(r, 2, 2, "rank0"));
    set(r, 1, 2, "rank0", "there"); /* a worker repeats itself after a restart */
    assert_string_equal(get(r, 1, 2, "rank0"), "there");
    set(r, 1, 2, "empty", "");
    assert_string_equal(get(r, 1, 2, "empty"), "");
}

/* Everyone who waits for a key hears of it once, when it is set; nobody else does. */
static void test_waiters(void **state)
{
    struct rendezvous *r = *state;
    assert_int_equal(rendezvous_wait(r, 1, 1, "a", 10, NULL), 0);
    assert_int_equal(rendezvous_wait(r, 1, 1, "a", 11, NULL), 0);
    assert_int_equal(rendezvous_wait(r, 1, 1, "b", 12, NULL), 0);
    assert_int_equal(rendezvous_wait(r, 1, 2, "a", 13, NULL), 0);
    assert_null(get(r, 1, 1, "a")); /* waiting does not make a value */
    set(r, 1, 1, "a", "x");
    assert_int_equal(answer_count, 2);
    assert_true(answers[0].waiter + answers[1].waiter == 21);
    assert_string_equal(answers[0].value, "x");
    set(r, 1, 1, "a", "y");
    assert_int_equal(answer_count, 2);
}

/* Who gave up is not answered. */
static void test_forget(void **state)
{
    struct rendezvous *r = *state;
    assert_int_equal(rendezvous_wait(r, 1, 1, "a", 10, NULL), 0);
    assert_int_equal(rendezvous_wait(r, 1, 1, "a", 11, NULL), 0);
    rendezvous_forget(r, 1, 1, "a", 10);
    rendezvous_forget(r, 1, 1, "a", 99);
    rendezvous_forget(r, 7, 7, "none", 10);
    set(r, 1, 1, "a", "x");
    assert_int_equal(answer_count, 1);
    assert_int_equal(answers[0].waiter, 11);
}

/* The end of an epoch tells its waiters and those of older epochs that they are stale, frees all of
 * it, and leaves newer epochs and other jobs alone. */
static void test_void(void **state)
{
    struct rendezvous *r = *state;
    set(r, 1, 1, "k", "old");
    set(r, 1, 2, "k", "over");
    set(r, 1, 3, "k", "new");
    set(r, 2, 1, "k", "other");
    assert_int_equal(rendezvous_wait(r, 1, 2, "missing", 10, NULL), 0);
    assert_int_equal(rendezvous_wait(r, 1, 3, "missing", 11, NULL), 0);
    rendezvous_void(r, 1, 2);
    assert_int_equal(answer_count, 1);
    assert_int_equal(answers[0].waiter, 10);
    assert_int_equal(answers[0].code, ERR_STALE);
    assert_null(get(r, 1, 1, "k"));
    assert_null(get(r, 1, 2, "k"));
    assert_string_equal(get(r, 1, 3, "k"), "new");
    assert_string_equal(get(r, 2, 1, "k"), "other");
    rendezvous_void(r, 1, 3);
    rendezvous_void(r, 2, 1);
    assert_int_equal(rendezvous_bytes(r), 0);
}

/* Keys and values over their limits are refused, and an epoch cannot hold more than its share; what
 * it had stays. */
static void test_limits(void **state)
{
    struct rendezvous *r = *state;
    char key[RENDEZVOUS_KEY_MAX + 2];
    struct err err = {0};
    memset(key, 'k', sizeof key);
    key[RENDEZVOUS_KEY_MAX + 1] = 0;
    assert_int_equal(rendezvous_set(r, 1, 1, key, "v", 1, &err), ERR_INVALID);
    assert_int_equal(rendezvous_set(r, 1, 1, "", "v", 1, &err), ERR_INVALID);
    assert_int_equal(rendezvous_wait(r, 1, 1, key, 1, &err), ERR_INVALID);
    key[RENDEZVOUS_KEY_MAX] = 0;
    assert_int_equal(rendezvous_set(r, 1, 1, key, "v", 1, &err), 0);

    char *value = mem_alloc(RENDEZVOUS_VALUE_MAX + 1);
    assert_int_equal(rendezvous_set(r, 1, 1, "big", value, RENDEZVOUS_VALUE_MAX + 1, &err),
                     ERR_TOO_LARGE);
    size_t stored = 0;
    for (;; stored++) {
        char name[32];
        snprintf(name, sizeof name, "%zu", stored);
        int rc = rendezvous_set(r, 1, 1, name, value, RENDEZVOUS_VALUE_MAX, &err);
        if (rc != 0) {
            assert_int_equal(rc, ERR_TOO_LARGE);
            break;
        }
    }
    assert_int_equal(stored, RENDEZVOUS_EPOCH_MAX / RENDEZVOUS_VALUE_MAX - 1);
    assert_true(rendezvous_bytes(r) <= RENDEZVOUS_EPOCH_MAX);
    assert_string_equal(get(r, 1, 1, key), "v");
    assert_int_equal(rendezvous_set(r, 1, 1, "0", "small", 5, &err),
                     0); /* a smaller one in its place fits */
    assert_int_equal(rendezvous_set(r, 1, 2, "other epoch", "v", 1, &err), 0);
    free(value);
}

/* Random sets, waits, give-ups and ends of epochs: every waiter is answered at most once, at its
 * set or as stale, and those not answered had no reason to be. */
static void test_random(void **state)
{
    struct rendezvous *r = *state;
    random_start("rendezvous");
    enum { WAITERS = 2000, KEYS = 8, EPOCHS = 3 };
    static struct {
        int epoch, key;
        int due; /* 1: waits, 0: answered or gave up */
    } waiters[WAITERS + 1];
    int is_set[EPOCHS][KEYS] = {{0}};
    uint64_t next = 1;
    while (next <= WAITERS) {
        int epoch = (int)random_below(EPOCHS), key = (int)random_below(KEYS);
        char name[16];
        snprintf(name, sizeof name, "k%d", key);
        switch (random_below(8)) {
        case 0:
            set(r, 1, (uint64_t)epoch + 1, name, name);
            is_set[epoch][key] = 1;
            break;
        case 1:
            if (random_one_in(20)) {
                rendezvous_void(r, 1, (uint64_t)epoch + 1);
                memset(is_set, 0, sizeof is_set[0] * (size_t)(epoch + 1));
            }
            break;
        case 2: {
            uint64_t w = 1 + random_below(next);
            if (w < next && waiters[w].due) {
                snprintf(name, sizeof name, "k%d", waiters[w].key);
                rendezvous_forget(r, 1, (uint64_t)waiters[w].epoch + 1, name, w);
                waiters[w].due = 0;
            }
            break;
        }
        default:
            if (get(r, 1, (uint64_t)epoch + 1, name) != NULL) {
                assert_true(is_set[epoch][key]);
                break;
            }
            assert_false(is_set[epoch][key]);
            assert_int_equal(rendezvous_wait(r, 1, (uint64_t)epoch + 1, name, next, NULL), 0);
            waiters[next].epoch = epoch;
            waiters[next].key = key;
            waiters[next++].due = 1;
        }
        for (size_t i = 0; i < answer_count; i++) {
            uint64_t w = answers[i].waiter;
            assert_true(waiters[w].due);
            waiters[w].due = 0;
            if (answers[i].code == 0) {
                snprintf(name, sizeof name, "k%d", waiters[w].key);
                assert_string_equal(answers[i].value, name);
            }
        }
        answer_count = 0;
    }
    for (uint64_t w = 1; w < next; w++) {
        assert_true(!waiters[w].due || !is_set[waiters[w].epoch][waiters[w].key]);
    }
    rendezvous_void(r, 1, EPOCHS);
    size_t due = 0;
    for (uint64_t w = 1; w < next; w++) {
        due += (size_t)waiters[w].due;
    }
    assert_int_equal(answer_count, due);
    assert_int_equal(rendezvous_bytes(r), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_set_and_get, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waiters, setup, teardown),
        cmocka_unit_test_setup_teardown(test_forget, setup, teardown),
        cmocka_unit_test_setup_teardown(test_void, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_random, setup, teardown),
    };
    return cmocka_run_group_tests_name("rendezvous", tests, NULL, NULL);
}
