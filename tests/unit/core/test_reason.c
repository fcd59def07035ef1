/* Why a job waits: in clusters made by hand, in which the right answer is known, the one code and
 * the whole sentence. And what can never start: refused at submit, with what would fit. */
#include "tests/unit/core/cluster.h"

#include "daemon/core/timeline.h"

static const struct policy_place places[] = {{"n[01-03]", "a", "r1", "leaf1"},
                                             {"n[04-06]", "a", "r1", "leaf2"}};

static void begin_with_places(void)
{
    struct core_config config;
    core_config_default(&config);
    config.policy.places = places;
    config.policy.place_count = 2;
    world_fini(&w);
    begin(&config);
}

static uint64_t submit_spec(struct jobspec spec)
{
    return world_submit_spec(&w, &spec, NULL, "h");
}

/* A rank of each node exits; the gang is started again later. */
static void fail_all(uint64_t id)
{
    start_all(id);
    end_all(id, 75);
}

static uint64_t set_quota(const char *user, const char *account, const char *class, int64_t count)
{
    struct input in = {.kind = INPUT_QUOTA_SET, .token = ++w.token};
    in.u.quota = (struct input_quota_set){.user = user,
                                          .account = account,
                                          .class = class,
                                          .by_user = "op",
                                          .nodes = count,
                                          .expires_ms = ROW_NONE};
    world_step(&w, &in);
    return w.core->quota_count;
}

static void set_account(int64_t nodes_max)
{
    struct input in = {.kind = INPUT_ACCOUNT_SET, .token = ++w.token};
    in.u.account = (struct input_account_set){
        .name = "a", .user = "op", .fields = ACCOUNT_FIELD_NODES_MAX, .nodes_max = nodes_max};
    world_step(&w, &in);
}

/* ---------------------------------------------------------------- the clusters */

/* 32 nodes, of which three drain and two are kept for a gang that failed twice. */
static uint64_t of_the_issue(void)
{
    nodes(32, 8);
    uint64_t failed = submit(2, 8, HOUR);
    fail_all(failed);
    fail_all(failed);
    for (int i = 30; i <= 32; i++) {
        char name[16];
        snprintf(name, sizeof name, "n%02d", i);
        world_node_order(&w, INPUT_NODE_DRAIN, name);
    }
    return submit(32, 8, HOUR);
}

static uint64_t no_node(void)
{
    return submit(1, 8, HOUR);
}

static uint64_t down(void)
{
    nodes(4, 8);
    world_gone(&w, 2);
    pass_time(5 * MINUTE);
    return submit(4, 8, HOUR);
}

/* The second node registers again, with so many accelerators, the fourth of which is ill. */
static void fall_ill(uint32_t count)
{
    struct input_gpu list[8];
    char uuids[8][16];
    for (uint32_t i = 0; i < count; i++) {
        snprintf(uuids[i], sizeof uuids[i], "n02-%u", i);
        list[i] = (struct input_gpu){
            .index = i, .uuid = uuids[i], .model = "cpu", .health = i == 3 ? "xid 79" : "ok"};
    }
    struct input in = {.kind = INPUT_WORKER_REGISTER, .token = ++w.token, .session = 9};
    in.u.reg = (struct input_register){.name = "n02",
                                       .boot_id = "b",
                                       .version = "1",
                                       .addr = "127.0.0.1",
                                       .gpus = list,
                                       .gpu_count = count};
    world_step(&w, &in);
}

static uint64_t faulty(void)
{
    nodes(2, 8);
    fall_ill(8);
    return submit(2, 8, HOUR);
}

/* It came back without the last two, after the job was taken. */
static uint64_t gone(void)
{
    nodes(2, 8);
    submit(1, 8, HOUR);
    uint64_t job = submit(2, 8, HOUR);
    fall_ill(6);
    return job;
}

/* One of eight is in use beside the ill one: seven there are when that job ends. */
static uint64_t faulty_beside_a_job(void)
{
    nodes(2, 8);
    submit(1, 8, HOUR);
    fall_ill(8);
    submit(1, 1, HOUR);
    return submit(1, 7, HOUR);
}

static uint64_t partly_taken(void)
{
    nodes(2, 8);
    submit(1, 5, HOUR);
    submit(1, 6, HOUR);
    return submit(1, 4, HOUR);
}

static uint64_t too_small(void)
{
    world_register(&w, 1, "n01", 4);
    world_register(&w, 2, "n02", 8);
    submit(1, 8, HOUR);
    return submit(1, 8, HOUR);
}

static uint64_t one_leaf(void)
{
    begin_with_places();
    nodes(6, 8);
    world_node_order(&w, INPUT_NODE_DRAIN, "n02");
    world_node_order(&w, INPUT_NODE_DRAIN, "n05");
    struct jobspec spec = world_spec(3, 8);
    spec.placement = PLACEMENT_LEAF;
    return submit_spec(spec);
}

static uint64_t spare_of_a_job(void)
{
    nodes(2, 8);
    struct jobspec spec = world_spec(1, 8);
    spec.spares = 1;
    submit_spec(spec);
    return submit(1, 8, HOUR);
}

static uint64_t spare_of_the_cluster(void)
{
    struct core_config config;
    core_config_default(&config);
    config.policy.spares = 1;
    world_fini(&w);
    begin(&config);
    nodes(2, 8);
    submit(1, 8, 0);
    return submit(1, 8, HOUR);
}

static uint64_t maintenance_ahead(void)
{
    nodes(2, 8);
    maintain("n[01-02]", T0 + HOUR, HOUR);
    return submit(2, 8, 2 * HOUR);
}

static uint64_t maintenance_now(void)
{
    nodes(2, 8);
    maintain("n02", T0, HOUR);
    return submit(2, 8, 2 * HOUR);
}

static uint64_t reserved(void)
{
    nodes(1, 8);
    struct input in = {.kind = INPUT_RESERVATION_CREATE, .token = ++w.token};
    in.u.reservation = (struct input_reservation){
        .nodes = "n01", .user = "ada", .by_user = "op", .start_ms = T0, .end_ms = T0 + HOUR};
    world_step(&w, &in);
    return submit(1, 8, MINUTE);
}

static uint64_t quota(void)
{
    nodes(4, 8);
    submit(2, 8, HOUR);
    set_quota("*", NULL, "normal", 3);
    return submit(2, 8, HOUR);
}

static uint64_t account(void)
{
    nodes(4, 8);
    submit(2, 8, HOUR);
    set_account(2);
    return submit(1, 8, HOUR);
}

static uint64_t queue_stopped(void)
{
    nodes(1, 8);
    set_queue("default", QUEUE_FIELD_STARTS, (struct input_queue_set){.starts = false});
    return submit(1, 8, HOUR);
}

static uint64_t queue_jobs(void)
{
    nodes(4, 8);
    submit(1, 8, HOUR);
    set_queue("default", QUEUE_FIELD_JOBS_MAX, (struct input_queue_set){.jobs_max = 1});
    return submit(1, 8, HOUR);
}

static uint64_t user_nodes(void)
{
    nodes(4, 8);
    submit(2, 8, HOUR);
    set_queue("default", QUEUE_FIELD_USER_NODES_MAX, (struct input_queue_set){.user_nodes_max = 3});
    return submit(2, 8, HOUR);
}

static uint64_t array(void)
{
    nodes(4, 8);
    struct jobspec spec = world_spec(1, 8);
    uint32_t indices[] = {0, 1, 2};
    spec.array = indices;
    spec.array_count = 3;
    spec.array_limit = 1;
    return submit_spec(spec) + 1;
}

static uint64_t dependency(void)
{
    nodes(1, 8);
    struct jobspec spec = world_spec(1, 8);
    struct dependency need = {DEPENDENCY_AFTER_OK, submit(1, 8, HOUR)};
    spec.dependencies = &need;
    spec.dependency_count = 1;
    return submit_spec(spec);
}

static uint64_t dependency_failed(void)
{
    uint64_t job = dependency();
    world_order(&w, INPUT_JOB_CANCEL, 1);
    end_all(1, 0);
    return job;
}

static uint64_t not_before(void)
{
    nodes(1, 8);
    struct jobspec spec = world_spec(1, 8);
    spec.not_before.in_ms = 30 * MINUTE;
    return submit_spec(spec);
}

static uint64_t held(void)
{
    nodes(1, 8);
    uint64_t job = submit(1, 8, HOUR);
    submit(1, 8, HOUR);
    world_order(&w, INPUT_JOB_HOLD, 2);
    (void)job;
    return 2;
}

static uint64_t suspended(void)
{
    nodes(1, 8);
    uint64_t job = submit(1, 8, HOUR);
    start_all(job);
    world_order(&w, INPUT_JOB_SUSPEND, job);
    end_all(job, 80);
    return job;
}

static uint64_t backoff(void)
{
    nodes(1, 8);
    uint64_t job = submit(1, 8, HOUR);
    fail_all(job);
    fail_all(job);
    return job;
}

static uint64_t behind(void)
{
    nodes(2, 8);
    submit(1, 8, 2 * HOUR);
    submit(2, 8, HOUR);
    return submit(1, 8, 3 * HOUR);
}

static uint64_t behind_without_limit(void)
{
    behind();
    return submit(1, 8, 0);
}

static uint64_t preempts(void)
{
    nodes(1, 8);
    uint64_t job = submit(1, 8, 10 * HOUR);
    start_all(job);
    pass_time(HOUR);
    return submit_as("u", 1, 8, HOUR, 50);
}

static uint64_t preempted_already(void)
{
    uint64_t job = preempts();
    submit(1, 1, HOUR);
    return job;
}

static uint64_t draining(void)
{
    nodes(1, 8);
    start_all(submit(1, 8, HOUR));
    world_node_order(&w, INPUT_NODE_DRAIN, "n01");
    return submit(1, 8, HOUR);
}

/* Gone a moment ago, and trusted until its lease ends. */
static uint64_t not_connected(void)
{
    nodes(2, 8);
    world_gone(&w, 2);
    return submit(2, 8, HOUR);
}

/* Two gangs have failed, and find their nodes again. */
static uint64_t held_for_two(void)
{
    nodes(5, 8);
    uint64_t one = submit(1, 8, HOUR), two = submit(2, 8, HOUR);
    fail_all(one);
    fail_all(one);
    fail_all(two);
    fail_all(two);
    return submit(4, 8, HOUR);
}

/* What is over before the gang's time is not kept from its nodes: it lacks others. */
static uint64_t short_enough(void)
{
    nodes(2, 8);
    submit(1, 8, 2 * HOUR);
    submit(2, 8, HOUR);
    return submit(2, 8, 30 * MINUTE);
}

static uint64_t no_limit_on_hosts(void)
{
    nodes(1, 8);
    world_node_order(&w, INPUT_NODE_DRAIN, "n01");
    return submit(1, 0, HOUR);
}

static uint64_t just_blocked(void)
{
    nodes(1, 8);
    submit(1, 8, HOUR);
    return submit(1, 8, HOUR);
}

/* ---------------------------------------------------------------- the answers */

static const struct {
    const char *name;
    uint64_t (*make)(void);
    const char *code, *text;
} cases[] = {
    {"drained, kept, free", of_the_issue, "nodes_unavailable",
     "needs 32 nodes with 8 free accelerators each: 27 free, 2 held for job 1 until 00:18 UTC, 3 "
     "drained (n30, n31, n32)"},
    {"no node", no_node, "no_nodes", "no node has ever registered (start dsworkerd on one)"},
    {"down", down, "nodes_unavailable",
     "needs 4 nodes with 8 free accelerators each: 3 free, 1 down (n02)"},
    {"faulty accelerator", faulty, "nodes_unavailable",
     "needs 2 nodes with 8 free accelerators each: 1 free, 1 with ill accelerators (n02: "
     "accelerator 3 xid 79)"},
    {"parts of nodes", partly_taken, "resources",
     "needs 1 node with 4 free accelerators each: 0 free, 2 busy, with up to 3 accelerators free "
     "on "
     "one; planned to start by 01:16 UTC"},
    {"too small", too_small, "resources",
     "needs 1 node with 8 free accelerators each: 0 free, 1 busy, 1 too small (n01); planned to "
     "start by "
     "01:16 UTC"},
    {"one leaf", one_leaf, "resources",
     "needs 3 nodes with 8 free accelerators each in one leaf: 4 free, 2 drained (n02, n05), at "
     "most 2 of the free ones in one leaf"},
    {"a job's spare", spare_of_a_job, "resources",
     "needs 1 node with 8 free accelerators each: 0 free, 1 busy, 1 kept as spare (n02); planned "
     "to "
     "start by 1970-01-02T00:16:40Z"},
    {"the cluster's spare", spare_of_the_cluster, "resources",
     "needs 1 node with 8 free accelerators each: 0 free, 1 busy, 1 kept as spare (n02); planned "
     "to "
     "start by 1970-01-02T00:16:40Z"},
    {"maintenance ahead", maintenance_ahead, "resources",
     "needs 2 nodes with 8 free accelerators each: 0 free, 2 due for maintenance 1 at 01:16 UTC; "
     "planned to start by 02:16 UTC"},
    {"maintenance", maintenance_now, "nodes_unavailable",
     "needs 2 nodes with 8 free accelerators each: 1 free, 1 in maintenance 1 until 01:16 "
     "UTC (n02); planned to start by 01:16 UTC"},
    {"reserved for others", reserved, "resources",
     "needs 1 node with 8 free accelerators each: 0 free, 1 set aside by reservation 1 until 01:16 "
     "UTC; planned to start by 01:16 UTC"},
    {"quota", quota, "quota",
     "quota 1 allows user u 3 nodes at priority class normal: 2 in use, the job needs 2"},
    {"account", account, "account_limit", "account a has 2 nodes, at most 2 are allowed"},
    {"queue stopped", queue_stopped, "queue_stopped",
     "queue default starts no jobs now (dsctl queue set default)"},
    {"queue's jobs", queue_jobs, "queue_limit", "queue default runs 1 jobs, at most 1 may"},
    {"user's nodes", user_nodes, "user_limit",
     "user u in queue default has 2 nodes, at most 3 are allowed"},
    {"array", array, "array_limit", "its array runs 1 jobs at a time, and 1 do"},
    {"dependency", dependency, "dependency",
     "waits until job 1 (j) has completed, which is STARTING"},
    {"dependency that failed", dependency_failed, "dependency",
     "it was to wait for job 1 to complete, which did not happen (dsctl job release 2 starts it "
     "all "
     "the same)"},
    {"not before", not_before, "not_before",
     "is not to start before 1970-01-01T00:46:40Z (not_before)"},
    {"held", held, "held",
     "held until somebody releases it (dsctl job release 2): held by u: why not"},
    {"suspended", suspended, "suspended",
     "suspended until somebody resumes it (dsctl job resume 1): suspended by u: why not"},
    {"back-off", backoff, "backoff",
     "waits 10.0 s more before restart 2 (2 without a newer checkpoint): rank 0 on n01 exited with "
     "status 75"},
    {"behind another", behind, "queue",
     "job 2 (j) goes first, planned for 02:16 UTC, and it fits into no gap before that; needs 1 "
     "node with 8 free accelerators each: 0 free, 1 held for job 2 until 02:16 UTC, 1 busy"},
    {"behind, without a limit", behind_without_limit, "queue",
     "job 2 (j) goes first, planned for 02:16 UTC, and it fits into no gap before that; needs 1 "
     "node with 8 free accelerators each: 0 free, 1 held for job 2 until 02:16 UTC, 1 busy "
     "(without "
     "a time_limit it fills no gaps)"},
    {"preemption", preempts, "preemption",
     "starts when 1 job has saved and stopped for it, first job 1 (j), by 01:21 UTC at the latest"},
    {"a gone accelerator", gone, "nodes_unavailable",
     "needs 2 nodes with 8 free accelerators each: 0 free, 1 busy, 1 with ill accelerators (n02: "
     "accelerator 3 xid 79, and 2 more), with up to 5 accelerators free on one"},
    {"an ill accelerator beside a job", faulty_beside_a_job, "resources",
     "needs 1 node with 7 free accelerators each: 0 free, 1 busy, 1 with ill accelerators (n02: "
     "accelerator 3 xid 79), with up to 6 accelerators free on one; planned to start by 01:16 UTC"},
    {"preempted already", preempted_already, "preemption",
     "starts when 1 job has saved and stopped for it, first job 1 (j), by 01:21 UTC at the latest"},
    {"draining", draining, "nodes_unavailable",
     "needs 1 node with 8 free accelerators each: 0 free, 1 draining (n01)"},
    {"not connected", not_connected, "nodes_unavailable",
     "needs 2 nodes with 8 free accelerators each: 1 free, 1 not connected (n02)"},
    {"held for two", held_for_two, "resources",
     "needs 4 nodes with 8 free accelerators each: 2 free, 2 held for job 2 until 00:18 UTC, 1 "
     "held for job 1 until 00:18 UTC; planned to start by 00:18 UTC"},
    {"short enough", short_enough, "queue",
     "job 2 (j) goes first, planned for 02:16 UTC, and it fits into no gap before that; needs 2 "
     "nodes with 8 free accelerators each: 1 free, 1 busy"},
    {"without accelerators", no_limit_on_hosts, "nodes_unavailable",
     "needs 1 node: 0 free, 1 drained (n01)"},
    {"busy", just_blocked, "resources",
     "needs 1 node with 8 free accelerators each: 0 free, 1 busy; planned to start by 01:16 UTC"},
};

/* Every state in which a job waits has its own sentence, with the counts of its cluster; the last
 * pass is as old as the last change. */
static void test_reasons(void **state)
{
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        world_fini(&w);
        world_init(&w);
        uint64_t job = cases[i].make();
        char code[32] = "", text[1024] = "";
        bool waits = core_why(w.core, job, code, sizeof code, text, sizeof text);
        if (!waits || strcmp(code, cases[i].code) != 0 || strcmp(text, cases[i].text) != 0) {
            print_error("%s:\n  is     %s: %s\n  should %s: %s\n", cases[i].name, code, text,
                        cases[i].code, cases[i].text);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
}

/* ---------------------------------------------------------------- never */

static void assert_refused(struct jobspec spec, const char *part)
{
    assert_int_equal(submit_spec(spec), 0);
    const char *text = world_effect(&w, EFFECT_REPLY, 0)->u.reply.text;
    if (strstr(text, part) == NULL) {
        fail_msg("'%s' is not in '%s'", part, text);
    }
    assert_null(w.core->job_first);
}

/* What can never start is refused, with the limit that it is over and what would fit. */
static void test_never(void **state)
{
    (void)state;
    begin_with_places();
    nodes(6, 8);
    assert_refused(world_spec(7, 8), "the cluster has 6 such nodes of 6");
    assert_refused(world_spec(1, 9), "the cluster has 0 such nodes of 6");
    struct jobspec spec = world_spec(4, 8);
    spec.placement = PLACEMENT_LEAF;
    assert_refused(spec, "the cluster has 3 such nodes of 6 in one leaf");
    set_queue("default", QUEUE_FIELD_NODES_MAX | QUEUE_FIELD_USER_NODES_MAX,
              (struct input_queue_set){.nodes_max = 5, .user_nodes_max = 4});
    assert_refused(world_spec(5, 8), "over the limit of queue default (allowed: up to 4)");
    set_account(3);
    assert_refused(world_spec(4, 8), "over the limit of account a (allowed: up to 3)");
    set_quota("*", NULL, NULL, 2);
    assert_refused(world_spec(3, 8), "over quota 1 (allowed: up to 2;");
    set_queue("default", QUEUE_FIELD_TIME_LIMIT, (struct input_queue_set){.time_limit_ms = HOUR});
    spec = world_spec(1, 8);
    spec.time_limit_ms = 2 * HOUR;
    assert_refused(spec, "7200 s are over the limit of queue default (allowed: up to 3600 s)");
    spec.time_limit_ms = HOUR;
    spec.deadline.in_ms = 10 * MINUTE;
    assert_refused(spec, "never be done by then: its time limit alone is 3600 s");
    spec = world_spec(1, 8);
    struct dependency need = {DEPENDENCY_AFTER_OK, 77};
    spec.dependencies = &need;
    spec.dependency_count = 1;
    assert_refused(spec, "there is no job 77");
    assert_true(submit_spec(world_spec(2, 8)) != 0);
}

/* An update asks for what a submit may ask for: a job that waits is not moved where it could never
 * start. */
static void test_update_never(void **state)
{
    (void)state;
    nodes(4, 8);
    submit(4, 8, HOUR);
    uint64_t job = submit(3, 8, HOUR);
    set_queue("small", QUEUE_FIELD_NODES_MAX, (struct input_queue_set){.nodes_max = 2});
    struct input in = {.kind = INPUT_JOB_UPDATE, .token = ++w.token};
    in.u.update =
        (struct input_job_update){.job = job, .fields = JOB_FIELD_QUEUE, .queue = "small"};
    world_step(&w, &in);
    assert_int_equal(world_code(&w), ERR_INVALID);
    assert_non_null(strstr(world_effect(&w, EFFECT_REPLY, 0)->u.reply.text, "allowed: up to 2"));
    in.token = ++w.token;
    in.u.update = (struct input_job_update){
        .job = job, .fields = JOB_FIELD_DEADLINE, .deadline_ms = w.now_ms + MINUTE};
    world_step(&w, &in);
    assert_int_equal(world_code(&w), ERR_INVALID);
    struct input resize = {.kind = INPUT_JOB_RESIZE, .token = ++w.token};
    resize.u.resize.job = job;
    resize.u.resize.nodes_min = resize.u.resize.nodes_max = 5;
    world_step(&w, &resize);
    assert_int_equal(world_code(&w), ERR_INVALID);
    assert_string_equal(world_job(&w, job)->row.queue, "default");
    assert_int_equal(world_job(&w, job)->row.nodes_min, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reasons, setup, teardown),
        cmocka_unit_test_setup_teardown(test_never, setup, teardown),
        cmocka_unit_test_setup_teardown(test_update_never, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
