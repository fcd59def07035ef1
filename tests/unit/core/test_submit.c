#include "tests/unit/core/world.h"

/* The same key with the same request is the same job, also after it has ended; with another request
 * it is refused. */
static void test_key(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    struct jobspec spec = world_spec(1, 1);
    uint64_t first = world_submit_spec(&w, &spec, "key-1", "hash-a");
    assert_false(world_effect(&w, EFFECT_REPLY, 0)->u.reply.existing);
    uint64_t again = world_submit_spec(&w, &spec, "key-1", "hash-a");
    assert_int_equal(first, again);
    assert_true(world_effect(&w, EFFECT_REPLY, 0)->u.reply.existing);
    assert_int_equal(world_submit_spec(&w, &spec, "key-1", "hash-b"), 0);
    assert_int_equal(world_code(&w), ERR_CONFLICT);
    world_order(&w, INPUT_JOB_CANCEL, first);
    assert_null(world_job(&w, first));
    assert_int_equal(world_submit_spec(&w, &spec, "key-1", "hash-a"), first);
    assert_int_not_equal(world_submit_spec(&w, &spec, "key-2", "hash-a"), first);
    assert_int_not_equal(world_submit_spec(&w, &spec, NULL, "hash-a"), first);
    world_fini(&w);
}

/* Thousands of keys stay apart. */
static void test_many_keys(void **state)
{
    (void)state;
    struct keys keys = {0};
    char key[32];
    int same;
    for (uint64_t i = 1; i <= 5000; i++) {
        snprintf(key, sizeof key, "key-%d", (int)i);
        assert_int_equal(keys_find(&keys, key, "h", &same), 0);
        keys_add(&keys, key, "h", i);
    }
    for (uint64_t i = 1; i <= 5000; i++) {
        snprintf(key, sizeof key, "key-%d", (int)i);
        assert_int_equal(keys_find(&keys, key, "h", &same), i);
        assert_true(same);
    }
    keys_fini(&keys);
}

/* What the registered nodes could never hold is refused, be they up or down; before the first node
 * anything is taken. */
static void test_never_fits(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    assert_int_not_equal(world_submit(&w, 100, 8), 0);
    world_register(&w, 1, "n1", 2);
    world_register(&w, 2, "n2", 4);
    world_gone(&w, 2);
    world_run_to(&w, w.now_ms + 60000);
    assert_int_equal(core_node(w.core, 2)->row.state, NODE_DOWN);
    assert_int_not_equal(world_submit(&w, 2, 2), 0);
    assert_int_not_equal(world_submit(&w, 1, 4), 0);
    assert_int_equal(world_submit(&w, 2, 3), 0);
    assert_int_equal(world_code(&w), ERR_INVALID);
    assert_non_null(strstr(world_effect(&w, EFFECT_REPLY, 0)->u.reply.text, "1 such node"));
    assert_int_equal(world_submit(&w, 3, 0), 0);
    world_fini(&w);
}

/* A dry run says what a submit would say, and changes nothing. */
static void test_dry_run(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    world_register(&w, 1, "n1", 1);
    uint64_t before = core_digest(w.core);
    struct jobspec spec = world_spec(1, 1);
    struct input in = {.kind = INPUT_JOB_SUBMIT, .token = ++w.token};
    in.u.submit = (struct input_submit){.spec = &spec,
                                        .spec_json = "{}",
                                        .workdir = "/",
                                        .user = "u",
                                        .key = "k",
                                        .request_hash = "h",
                                        .dry_run = true};
    world_step(&w, &in);
    assert_int_equal(world_code(&w), 0);
    assert_int_equal(world_effect(&w, EFFECT_REPLY, 0)->u.reply.id, 0);
    spec = world_spec(2, 1);
    in.token = ++w.token;
    world_step(&w, &in);
    assert_int_equal(world_code(&w), ERR_INVALID);
    assert_true(core_digest(w.core) == before);
    world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_key),
        cmocka_unit_test(test_many_keys),
        cmocka_unit_test(test_never_fits),
        cmocka_unit_test(test_dry_run),
    };
    return cmocka_run_group_tests_name("core/submit", tests, NULL, NULL);
}
