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

static int64_t any_limit(void)
{
    return roll(3) == 0 ? ROW_NONE : (int64_t)roll(4);
}

/* Queues, accounts, quotas, maintenance. */
static void any_rule(struct world *w)
{
    static const char *const names[] = {"default", "a", "fast"}, *const users[] = {"u", "*", NULL};
    struct input in = {.token = ++w->token};
    switch (roll(5)) {
    case 0:
        in.kind = INPUT_QUEUE_SET;
        in.u.queue = (struct input_queue_set){.name = names[roll(3)],
                                              .user = "op",
                                              .fields = (uint32_t)roll(8192),
                                              .weight_milli = (int64_t)roll(3000),
                                              .priority = (int64_t)roll(3),
                                              .nodes_max = any_limit(),
                                              .jobs_max = any_limit(),
                                              .user_nodes_max = any_limit(),
                                              .user_jobs_max = any_limit(),
                                              .waiting_max = ROW_NONE,
                                              .priority_max = ROW_NONE,
                                              .time_limit_ms = ROW_NONE,
                                              .preempts = roll(2),
                                              .preemptible = roll(2),
                                              .accepts = roll(8) != 0,
                                              .starts = roll(8) != 0};
        break;
    case 1:
        in.kind = INPUT_ACCOUNT_SET;
        in.u.account = (struct input_account_set){.name = names[roll(3)],
                                                  .user = "op",
                                                  .fields = (uint32_t)roll(8),
                                                  .shares = (int64_t)roll(5),
                                                  .nodes_max = any_limit(),
                                                  .accepts = roll(8) != 0};
        break;
    case 2:
        in.kind = INPUT_QUOTA_SET;
        in.u.quota = (struct input_quota_set){
            .user = users[roll(3)],
            .account = roll(2) ? "a" : NULL,
            .class = roll(2) ? "normal" : NULL,
            .by_user = "op",
            .nodes = any_limit(),
            .expires_ms = roll(2) ? ROW_NONE : w->now_ms + (int64_t)roll(60000)};
        break;
    case 3:
        in.kind = INPUT_RESERVATION_CREATE;
        in.u.reservation =
            (struct input_reservation){.is_maint = roll(2),
                                       .nodes = roll(2) ? "n1" : "n[1-2]",
                                       .user = "v",
                                       .by_user = "op",
                                       .start_ms = w->now_ms + (int64_t)roll(60000),
                                       .end_ms = w->now_ms + 60000 + (int64_t)roll(60000)};
        break;
    default:
        in.kind = INPUT_RESERVATION_CANCEL;
        in.u.reservation.id = roll(8);
    }
    world_step(w, &in);
}

static void any_change(struct world *w, const struct job *job)
{
    struct input in = {.token = ++w->token};
    if (roll(2) == 0) {
        in.kind = INPUT_JOB_RESIZE;
        in.u.resize.job = job->row.id;
        in.u.resize.nodes_min = 1 + (uint32_t)roll(2);
        in.u.resize.nodes_max = in.u.resize.nodes_min + (uint32_t)roll(2);
    } else {
        in.kind = INPUT_JOB_UPDATE;
        in.u.update = (struct input_job_update){
            .job = job->row.id,
            .user = "op",
            .fields = (uint32_t)roll(512),
            .priority = (int64_t)roll(4),
            .time_limit_ms = (int64_t)roll(2) * 60000,
            .not_before_ms = roll(2) ? 0 : w->now_ms + (int64_t)roll(9000),
            .deadline_ms = roll(2) ? ROW_NONE : w->now_ms + (int64_t)roll(90000),
            .array_limit = (int64_t)roll(3),
            .min_runtime_ms = (int64_t)roll(9000),
            .queue = roll(2) ? "default" : "fast",
            .account = roll(2) ? "a" : "b",
            .preemptible = roll(2)};
    }
    world_step(w, &in);
}

static void any_plan(struct jobspec *spec, uint32_t *indices, struct dependency *need)
{
    indices[0] = 1;
    indices[1] = 4;
    spec->array = roll(4) == 0 ? indices : NULL;
    spec->array_count = spec->array != NULL ? 2 : 0;
    spec->array_limit = (uint32_t)roll(2);
    *need = (struct dependency){(enum dependency_kind)roll(4), 1 + roll(12)};
    spec->dependencies = need;
    spec->dependency_count = roll(3) == 0;
    spec->singleton = roll(12) == 0;
    spec->not_before.in_ms = roll(6) == 0 ? 1 + roll(20000) : 0;
    spec->deadline.in_ms = roll(8) == 0 ? 30000 + roll(60000) : 0;
    spec->preemptible = (enum by_policy)roll(3);
    spec->spares = roll(8) == 0 && spec->gpus_per_node > 0;
    spec->hold = roll(12) == 0;
    spec->nodes_max += (uint32_t)roll(2);
}

static void any_input(struct world *w)
{
    static const enum input_kind orders[] = {
        INPUT_JOB_CANCEL,  INPUT_JOB_HOLD,   INPUT_JOB_RELEASE, INPUT_JOB_RELEASE,
        INPUT_JOB_SUSPEND, INPUT_JOB_RESUME, INPUT_JOB_RESUME,  INPUT_JOB_REQUEUE};
    uint32_t indices[2];
    struct dependency need;
    struct jobspec spec = world_spec(1 + (uint32_t)roll(3), (uint32_t)roll(4));
    struct job *job = w->core->job_first;
    for (uint64_t skip = roll(3); job != NULL && skip > 0 && job->next != NULL; skip--) {
        job = job->next;
    }
    char key[16];
    snprintf(key, sizeof key, "k%d", (int)roll(200));
    switch (roll(18)) {
    case 0:
    case 1:
        spec.priority = (int64_t)roll(3);
        spec.has_train = roll(2) == 0;
        spec.time_limit_ms = roll(5) == 0 ? 5000 : 0;
        any_plan(&spec, indices, &need);
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
        world_order(w, orders[roll(8)], job != NULL ? job->row.id : roll(20));
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
    case 13:
        if (roll(3) == 0) {
            any_rule(w);
        }
        break;
    case 14:
        if (job != NULL) {
            any_change(w, job);
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
