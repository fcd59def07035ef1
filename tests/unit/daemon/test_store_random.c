/* Random inputs, sensible and not, through the pump into SQLite. */
#include "tests/unit/core/world.h"

#include <time.h>
#include <unistd.h>

#include "daemon/store.h"
#include "lib/file.h"

static uint64_t rng;
static uint64_t roll(uint64_t bound)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (rng >> 33) % bound;
}

static struct err err;
static void ok(int rc)
{
    if (rc != 0) {
        fail_msg("%s", err.text);
    }
}

static void ignore(void *world, const struct effect *effect)
{
    (void)world;
    (void)effect;
}
static const struct effect_sink sink = {ignore};

static struct core *new_core(void)
{
    struct core_config config;
    core_config_default(&config);
    return core_create(&config);
}

/* Text that is not for every eye: quotes, UTF-8, control characters, long. */
static const char *any_text(void)
{
    static const char *const texts[] = {NULL,
                                        "",
                                        "plain",
                                        "it's \"quoted\"; DROP TABLE job;--",
                                        "\xc3\xa9\xe2\x82\xac",
                                        "line\nline\ttab\x01",
                                        "%s%n%d"};
    return texts[roll(sizeof texts / sizeof texts[0])];
}

static void any_register(struct world *w)
{
    static const char *const names[] = {"n1", "n2", "n3", "bad name", ""};
    struct input_attempt_report reports[3];
    struct input_exit exits[3];
    size_t count = roll(4);
    for (size_t i = 0; i < count; i++) {
        for (int j = 0; j < 3; j++) {
            exits[j] =
                (struct input_exit){.rank = (uint32_t)roll(5), .code = (int32_t)roll(95) - 1};
        }
        reports[i] = (struct input_attempt_report){.job = roll(12),
                                                   .epoch = roll(4),
                                                   .phase = (uint32_t)roll(5),
                                                   .error = roll(8) == 0 ? any_text() : NULL,
                                                   .exits = exits,
                                                   .exit_count = roll(4)};
    }
    const char *name = names[roll(20) == 0 ? roll(5) : roll(3)];
    world_register_with(w, 1 + roll(6), name, roll(5), reports, count);
}

static void any_report(struct world *w, const struct job *job)
{
    struct input_exit exits[4];
    for (uint32_t i = 0; i < 4; i++) {
        exits[i] = (struct input_exit){.rank = (uint32_t)roll(5),
                                       .code = roll(3) == 0 ? 0 : (int32_t)roll(95) - 1,
                                       .signal = roll(6) == 0 ? (int32_t)roll(32) : 0,
                                       .at_ms = w->now_ms - 50 + (int64_t)roll(100),
                                       .last_words = any_text()};
    }
    uint64_t epoch = job != NULL && roll(4) != 0 ? (uint64_t)job->row.epoch : roll(4);
    world_report(w, 1 + roll(6), job != NULL ? job->row.id : roll(12), epoch, (uint32_t)roll(4),
                 exits, roll(5));
}

static void any_shards(struct world *w, const struct job *job)
{
    uint64_t step = roll(40), epoch = (uint64_t)job->row.epoch;
    uint32_t size = job->attempt != NULL ? job->attempt->world_size : 1;
    for (uint32_t rank = 0; rank < size; rank++) {
        for (session_id session = 1; session <= 6; session++) {
            if (roll(12) != 0) {
                world_shard(w, session, job->row.id, epoch, step, size, rank);
            }
        }
    }
}

static void any_input(struct world *w)
{
    static const enum input_kind orders[] = {INPUT_JOB_CANCEL, INPUT_JOB_HOLD, INPUT_JOB_RELEASE,
                                             INPUT_JOB_RELEASE};
    struct jobspec spec = world_spec(1 + (uint32_t)roll(3), (uint32_t)roll(4));
    struct job *job = w->core->job_first;
    for (uint64_t skip = roll(3); job != NULL && skip > 0 && job->next != NULL; skip--) {
        job = job->next;
    }
    char key[16];
    snprintf(key, sizeof key, "k%d", (int)roll(200));
    switch (roll(16)) {
    case 0:
    case 1:
        spec.priority = (int64_t)roll(3);
        spec.has_train = roll(2) == 0;
        spec.time_limit_ms = roll(5) == 0 ? 5000 : 0;
        world_submit_spec(w, &spec, roll(2) == 0 ? key : NULL, roll(5) == 0 ? "other" : "h");
        break;
    case 2:
    case 3:
        any_register(w);
        break;
    case 4:
        world_gone(w, 1 + roll(6));
        break;
    case 5:
        world_order(w, orders[roll(4)], job != NULL ? job->row.id : roll(20));
        break;
    case 6:
        world_node_order(w, roll(3) == 0 ? INPUT_NODE_DRAIN : INPUT_NODE_RESUME,
                         roll(2) ? "n1" : "n2");
        break;
    case 7:
        world_ckpt_answer(w, roll(2) ? INPUT_CKPT_PUBLISHED : INPUT_CKPT_REMOVED, 1 + roll(20),
                          roll(3) != 0, any_text());
        break;
    case 8:
        world_ckpt_answer(w, INPUT_CKPT_VERIFIED, 1 + roll(40), roll(3) != 0, any_text());
        break;
    case 9:
        world_run_to(w, w->now_ms + (int64_t)roll(40000));
        break;
    case 10:
        if (job != NULL) {
            any_shards(w, job);
        }
        break;
    case 11:
    case 12:
        for (session_id session = 1; job != NULL && session <= 6; session++) {
            world_steps(w, session, job->row.id, (uint64_t)job->row.epoch, roll(60), roll(200),
                        roll(100));
        }
        break;
    default:
        any_report(w, job);
    }
    w->now_ms += (int64_t)roll(3000);
}

static void check_equal(struct world *w, struct store *store)
{
    struct core *copy = new_core();
    ok(store_load_readonly(store, copy, &err));
    const char *problem = core_check(copy);
    if (problem != NULL) {
        fail_msg("after a reload: %s", problem);
    }
    assert_true(core_digest(copy) == core_digest(w->core));
    core_destroy(copy);
}

/* Whatever is said to the core, in whatever order, its invariants hold, and the tables hold all of
 * its state: a reload equals it. */
static void test_reload_equals_live(void **state)
{
    (void)state;
    const char *given = getenv("SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    print_message("SEED=%llu\n", (unsigned long long)seed);
    for (uint64_t round = 0; round < 12; round++) {
        rng = seed * 1000 + round;
        char dir[] = "/tmp/ds-random-XXXXXX";
        assert_non_null(mkdtemp(dir));
        struct store *store = NULL;
        ok(store_open(&store, dir, &err));
        struct world w = {.now_ms = T0};
        w.core = new_core();
        ok(store_load(store, w.core, T0, &err));
        w.pump = pump_create(w.core, &store_sqlite_ops, store, &sink, NULL);
        for (int i = 0; i < 250; i++) {
            any_input(&w);
            w.ledger_count = 0; /* not looked at here */
            if (roll(10) == 0) {
                check_equal(&w, store);
            }
            if (roll(60) == 0) { /* the process dies and comes back */
                pump_destroy(w.pump);
                core_destroy(w.core);
                store_close(store);
                ok(store_open(&store, dir, &err));
                w.core = new_core();
                ok(store_load(store, w.core, w.now_ms, &err));
                w.pump = pump_create(w.core, &store_sqlite_ops, store, &sink, NULL);
            }
        }
        check_equal(&w, store);
        pump_destroy(w.pump);
        effect_list_fini(&w.effects);
        core_destroy(w.core);
        store_close(store);
        ok(file_remove_tree(dir, &err));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_reload_equals_live)};
    return cmocka_run_group_tests_name("daemon/store_random", tests, NULL, NULL);
}
