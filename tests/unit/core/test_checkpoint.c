#include "tests/unit/core/world.h"

#include "proto/manifest.h"

static struct world w;
static uint64_t job;

static int setup(void **state)
{
    (void)state;
    world_init(&w);
    world_register(&w, 1, "n1", 1);
    world_register(&w, 2, "n2", 1);
    job = world_submit(&w, 2, 1);
    world_start(&w, 1, job, 1);
    world_start(&w, 2, job, 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_fini(&w);
    return 0;
}

static struct ckpt *newest(void)
{
    return ckpt_newest(world_job(&w, job));
}

/* Both ranks' shards of a step, in the live epoch. */
static void save(uint64_t step)
{
    uint64_t epoch = (uint64_t)world_job(&w, job)->row.epoch;
    assert_int_equal(world_shard(&w, 1, job, epoch, step, 2, 0), 0);
    assert_int_equal(world_shard(&w, 2, job, epoch, step, 2, 1), 0);
}

/* Ends the live attempt by a killed rank; the next one starts. */
static void crash(void)
{
    uint64_t epoch = (uint64_t)world_job(&w, job)->row.epoch;
    world_report_exit(&w, 1, job, epoch, 3, world_killed(&w, 0, 9));
    world_report_exit(&w, 2, job, epoch, 3, world_exit(&w, 1, 85));
}

/* A checkpoint is committed with its last shard, not before, and then ordered to be published until
 * that is acknowledged. */
static void test_commit(void **state)
{
    (void)state;
    world_steps(&w, 1, job, 1, 10, 0, 0);
    int64_t step_at_ms = w.now_ms;
    w.now_ms += 500;
    assert_int_equal(world_shard(&w, 2, job, 1, 10, 2, 1), 0);
    assert_null(newest());
    assert_int_equal(core_ckpt(w.core, 1)->row.state, CKPT_WRITING);
    assert_int_equal(world_job(&w, job)->row.ckpt_id, 0);
    w.now_ms += 500;
    assert_int_equal(world_shard(&w, 1, job, 1, 10, 2, 0), 0);
    const struct ckpt *ckpt = newest();
    assert_int_equal(ckpt->row.state, CKPT_COMMITTED);
    assert_int_equal(ckpt->row.committed_ms, w.now_ms);
    assert_int_equal(ckpt->row.step_at_ms, step_at_ms);
    assert_int_equal(ckpt->row.bytes, 2000);
    assert_int_equal(world_job(&w, job)->row.ckpt_id, 1);
    char path[128];
    snprintf(path, sizeof path,
             "/var/lib/ds/checkpoints/job-000001-%x/t00001-e00001/step-0000000010", T0);
    assert_string_equal(ckpt->row.path, path);
    const struct effect *publish = world_effect(&w, EFFECT_CKPT_PUBLISH, 0);
    assert_int_equal(publish->session, 1);
    assert_string_equal(publish->u.ckpt.path, path);
    char sha256[65];
    manifest_digest_text(publish->u.ckpt.manifest, strlen(publish->u.ckpt.manifest), sha256);
    assert_string_equal(sha256, ckpt->row.sha256);
    struct manifest manifest;
    struct err err = {0};
    assert_int_equal(manifest_parse(&manifest, publish->u.ckpt.manifest,
                                    strlen(publish->u.ckpt.manifest), "m", &err),
                     0);
    assert_int_equal(manifest.job, job);
    assert_int_equal(manifest.epoch, 1);
    assert_int_equal(manifest.step, 10);
    assert_int_equal(manifest.world_size, 2);
    manifest_fini(&manifest);
    /* lost on the way: the node that carries it out is asked again when it comes back, another one
     * while it is away */
    world_gone(&w, 1);
    assert_int_equal(world_effect(&w, EFFECT_CKPT_PUBLISH, 0)->session, 2);
    struct input_attempt_report has = {.job = job, .epoch = 1, .phase = 2};
    world_register_with(&w, 3, "n1", 1, &has, 1);
    assert_int_equal(world_effect(&w, EFFECT_CKPT_PUBLISH, 0)->session, 3);
    assert_int_equal(world_ckpt_answer(&w, INPUT_CKPT_PUBLISHED, 1, true, NULL), 0);
    assert_true(ckpt->row.published);
    world_gone(&w, 3);
    assert_int_equal(world_count(&w, EFFECT_CKPT_PUBLISH), 0);
}

/* What could not be published is tried again, later each time. */
static void test_publish_fails(void **state)
{
    (void)state;
    save(10);
    assert_int_equal(world_ckpt_answer(&w, INPUT_CKPT_PUBLISHED, 1, false, "disk full"), 0);
    int64_t first_ms = core_deadline(w.core) - w.now_ms;
    assert_int_equal(first_ms, 1000);
    world_run_to(&w, w.now_ms + 1000);
    assert_int_equal(world_count(&w, EFFECT_CKPT_PUBLISH), 1);
    world_ckpt_answer(&w, INPUT_CKPT_PUBLISHED, 1, false, "disk full");
    assert_int_equal(core_deadline(w.core) - w.now_ms, 2000);
    world_ckpt_answer(&w, INPUT_CKPT_PUBLISHED, 1, true, NULL);
    world_run_to(&w, w.now_ms + 2000);
    assert_int_equal(world_count(&w, EFFECT_CKPT_PUBLISH), 0);
}

/* A shard of an epoch that is over is refused, in whatever state the job is, and leaves no trace.
 */
static void test_stale_epoch(void **state)
{
    (void)state;
    assert_int_equal(world_shard(&w, 1, job, 1, 5, 2, 0), 0);
    crash();
    assert_int_equal(world_job(&w, job)->row.epoch, 2);
    uint64_t before = core_digest(w.core);
    assert_int_equal(world_shard(&w, 1, job, 1, 5, 2, 0), ERR_STALE);
    assert_int_equal(world_shard(&w, 2, job, 1, 5, 2, 1), ERR_STALE);
    assert_int_equal(world_shard(&w, 1, job, 1, 20, 2, 0), ERR_STALE);
    assert_int_equal(world_shard(&w, 2, job, 1, 20, 2, 1), ERR_STALE);
    assert_int_equal(world_shard(&w, 1, job, 3, 20, 2, 0), ERR_STALE);
    assert_int_equal(world_shard(&w, 1, job + 1, 1, 20, 2, 0), ERR_NOT_FOUND);
    assert_true(core_digest(w.core) == before);
    assert_null(newest());
    world_order(&w, INPUT_JOB_CANCEL, job);
    world_report_exit(&w, 1, job, 2, 3, world_killed(&w, 0, 15));
    world_report_exit(&w, 2, job, 2, 3, world_killed(&w, 1, 15));
    assert_null(world_job(&w, job));
    assert_int_equal(world_shard(&w, 1, job, 2, 20, 2, 0), ERR_STALE);
}

/* A node that has no live part in the attempt cannot contribute, though the epoch is right. */
static void test_fenced_node(void **state)
{
    (void)state;
    world_register(&w, 4, "n4", 1);
    assert_int_equal(world_shard(&w, 4, job, 1, 5, 2, 0), ERR_STALE);
    assert_int_equal(world_shard(&w, 99, job, 1, 5, 2, 0), ERR_STALE);
}

/* Repeats are answered as the first time; contradictions and nonsense are refused. */
static void test_repeats_and_nonsense(void **state)
{
    (void)state;
    assert_int_equal(world_shard(&w, 1, job, 1, 5, 2, 0), 0);
    uint64_t before = core_digest(w.core);
    assert_int_equal(world_shard(&w, 1, job, 1, 5, 2, 0), 0);
    assert_true(core_digest(w.core) == before);
    assert_int_equal(world_shard(&w, 1, job, 1, 5, 3, 0), ERR_INVALID);
    assert_int_equal(world_shard(&w, 1, job, 1, 5, 2, 2), ERR_INVALID);
    struct input in = {.kind = INPUT_SHARD_REPORT, .session = 1};
    const struct input_shard good = {
        .job = job,
        .epoch = 1,
        .step = 5,
        .world_size = 2,
        .rank = 1,
        .file = "a.safetensors",
        .xxh3 = "0123456789abcdef0123456789abcdef",
        .sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        .layout = "{}"};
    struct {
        const char *file, *xxh3, *layout;
        int code;
    } bad[] = {
        {"../x", good.xxh3, "{}", ERR_INVALID},  {"a/b", good.xxh3, "{}", ERR_INVALID},
        {"", good.xxh3, "{}", ERR_INVALID},      {".", good.xxh3, "{}", ERR_INVALID},
        {"a\"b", good.xxh3, "{}", ERR_INVALID},  {"a\nb", good.xxh3, "{}", ERR_INVALID},
        {good.file, "0123", "{}", ERR_INVALID},  {good.file, good.sha256, "{}", ERR_INVALID},
        {good.file, good.xxh3, "", ERR_INVALID}, {good.file, good.xxh3, "{\"a\":1}", ERR_CONFLICT},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        in.u.shard = good;
        in.u.shard.file = bad[i].file;
        in.u.shard.xxh3 = bad[i].xxh3;
        in.u.shard.layout = bad[i].layout;
        in.token = ++w.token;
        world_step(&w, &in);
        assert_int_equal(world_code(&w), bad[i].code);
        assert_true(core_digest(w.core) == before);
    }
    in.u.shard = good;
    in.token = ++w.token;
    world_step(&w, &in);
    assert_int_equal(world_code(&w), 0);
    assert_non_null(newest());
    assert_int_equal(world_shard(&w, 1, job, 1, 5, 2, 0), 0); /* a repeat after the commit */
    in.u.shard.bytes = 7;
    in.token = ++w.token;
    world_step(&w, &in);
    assert_int_equal(world_code(&w), ERR_CONFLICT);
}

/* A new attempt starts from the newest committed checkpoint, with its manifest; unfinished ones are
 * removed. */
static void test_resume(void **state)
{
    (void)state;
    world_steps(&w, 1, job, 1, 25, 0, 0);
    save(10);
    save(20);
    assert_int_equal(world_shard(&w, 1, job, 1, 30, 2, 0), 0);
    crash();
    const struct effect_start *start = &world_effect(&w, EFFECT_ATTEMPT_START, 1)->u.start;
    assert_int_equal(start->resume_ckpt, 2);
    assert_int_equal(start->resume_step, 20);
    assert_string_equal(start->resume_path, core_ckpt(w.core, 2)->row.path);
    assert_non_null(strstr(start->resume_manifest, "\"step\":20"));
    assert_non_null(strstr(start->checkpoint_dir, "/t00001-e00002"));
    assert_int_equal(world_job(&w, job)->attempt->row.resume_step, 20);
    const struct effect *remove = world_effect(&w, EFFECT_CKPT_REMOVE, 0);
    assert_int_equal(remove->u.ckpt.ckpt, 3);
    assert_null(remove->u.ckpt.manifest);
    assert_int_equal(core_ckpt(w.core, 3)->row.state, CKPT_DELETED);
    assert_int_equal(world_ckpt_answer(&w, INPUT_CKPT_REMOVED, 3, true, NULL), 0);
    assert_null(core_ckpt(w.core, 3));
    assert_int_equal(world_ckpt_answer(&w, INPUT_CKPT_REMOVED, 3, true, NULL), ERR_NOT_FOUND);
}

/* The newest `keep` stay and the pinned ones; of the others the files are removed. */
static void test_retention(void **state)
{
    (void)state;
    for (uint64_t step = 1; step <= 3; step++) {
        save(step);
        assert_int_equal(world_count(&w, EFFECT_CKPT_REMOVE), 0);
    }
    core_ckpt(w.core, 1)->row.pinned = true;
    save(4);
    assert_int_equal(world_count(&w, EFFECT_CKPT_REMOVE), 0);
    save(5);
    assert_int_equal(world_count(&w, EFFECT_CKPT_REMOVE), 1);
    assert_int_equal(core_ckpt(w.core, 1)->row.state, CKPT_COMMITTED);
    assert_int_equal(core_ckpt(w.core, 2)->row.state, CKPT_DELETED);
    assert_int_equal(core_ckpt(w.core, 3)->row.state, CKPT_COMMITTED);
    /* the removal is asked for again until it is reported */
    world_gone(&w, 1);
    assert_int_equal(world_effect(&w, EFFECT_CKPT_REMOVE, 0)->session, 2);
    world_ckpt_answer(&w, INPUT_CKPT_REMOVED, 2, false, "busy");
    assert_non_null(core_ckpt(w.core, 2));
    world_run_to(&w, w.now_ms + 1000);
    assert_int_equal(world_count(&w, EFFECT_CKPT_REMOVE), 1);
}

/* A shard that is reported again when its checkpoint has long been removed is a repeat, not a new
 * checkpoint. */
static void test_late_repeat(void **state)
{
    (void)state;
    for (uint64_t step = 1; step <= 5; step++) {
        save(step);
    }
    assert_int_equal(core_ckpt(w.core, 1)->row.state, CKPT_DELETED);
    assert_int_equal(world_ckpt_answer(&w, INPUT_CKPT_REMOVED, 1, true, NULL), 0);
    assert_int_equal(world_ckpt_answer(&w, INPUT_CKPT_VERIFIED, 1, true, NULL), ERR_NOT_FOUND);
    assert_int_equal(world_shard(&w, 1, job, 1, 1, 2, 0), 0); /* files are gone */
    assert_int_equal(world_shard(&w, 1, job, 1, 2, 2, 0), 0); /* about to go */
    assert_int_equal(world_ckpt_answer(&w, INPUT_CKPT_VERIFIED, 3, false, "rot"), 0);
    uint64_t before = core_digest(w.core);
    assert_int_equal(world_shard(&w, 2, job, 1, 3, 2, 1), 0); /* corrupt */
    assert_true(core_digest(w.core) == before);
    assert_int_equal(w.core->next_ckpt, 6);
    crash(); /* from the next epoch on it is stale */
    assert_null(core_ckpt(w.core, 1));
    assert_int_equal(world_shard(&w, 1, job, 1, 1, 2, 0), ERR_STALE);
}

/* Of equal steps the one of the later epoch is the newer. */
static void test_order_of_training(void **state)
{
    (void)state;
    save(10);
    save(20);
    world_ckpt_answer(&w, INPUT_CKPT_VERIFIED, 2, false, "bit rot");
    crash();
    world_start(&w, 1, job, 2);
    world_start(&w, 2, job, 2);
    assert_int_equal(world_job(&w, job)->attempt->row.resume_step, 10);
    save(15);
    assert_int_equal(newest()->row.step, 15);
    save(20);
    assert_int_equal(newest()->row.epoch, 2);
}

/* A corrupt checkpoint is never loaded again; the one before is. */
static void test_corrupt(void **state)
{
    (void)state;
    save(10);
    save(20);
    assert_int_equal(world_ckpt_answer(&w, INPUT_CKPT_VERIFIED, 2, true, NULL), 0);
    assert_int_equal(newest()->row.step, 20);
    assert_int_equal(world_ckpt_answer(&w, INPUT_CKPT_VERIFIED, 2, false, "shard 1: xxh3"), 0);
    assert_int_equal(core_ckpt(w.core, 2)->row.state, CKPT_CORRUPT);
    assert_string_equal(core_ckpt(w.core, 2)->row.reason, "shard 1: xxh3");
    assert_int_equal(world_job(&w, job)->row.ckpt_id, 1);
    assert_int_equal(world_ckpt_answer(&w, INPUT_CKPT_VERIFIED, 2, true, NULL), ERR_CONFLICT);
    assert_int_equal(world_ckpt_answer(&w, INPUT_CKPT_VERIFIED, 99, true, NULL), ERR_NOT_FOUND);
    crash();
    assert_int_equal(world_job(&w, job)->attempt->row.resume_ckpt_id, 1);
}

/* Checkpoints outlive their job: they can still be verified, published and removed. */
static void test_outlive(void **state)
{
    (void)state;
    save(10);
    world_report_exit(&w, 1, job, 1, 3, world_exit(&w, 0, 0));
    world_report_exit(&w, 2, job, 1, 3, world_exit(&w, 1, 0));
    assert_null(world_job(&w, job));
    assert_non_null(core_ckpt(w.core, 1));
    world_gone(&w, 1);
    assert_int_equal(world_effect(&w, EFFECT_CKPT_PUBLISH, 0)->session, 2);
    assert_int_equal(world_ckpt_answer(&w, INPUT_CKPT_PUBLISHED, 1, true, NULL), 0);
    assert_int_equal(world_ckpt_answer(&w, INPUT_CKPT_VERIFIED, 1, false, "rot"), 0);
    assert_int_equal(core_ckpt(w.core, 1)->row.state, CKPT_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_publish_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stale_epoch, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fenced_node, setup, teardown),
        cmocka_unit_test_setup_teardown(test_repeats_and_nonsense, setup, teardown),
        cmocka_unit_test_setup_teardown(test_resume, setup, teardown),
        cmocka_unit_test_setup_teardown(test_retention, setup, teardown),
        cmocka_unit_test_setup_teardown(test_late_repeat, setup, teardown),
        cmocka_unit_test_setup_teardown(test_order_of_training, setup, teardown),
        cmocka_unit_test_setup_teardown(test_corrupt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_outlive, setup, teardown),
    };
    return cmocka_run_group_tests_name("core/checkpoint", tests, NULL, NULL);
}
