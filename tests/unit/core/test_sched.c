/* Hand-made clusters in which the right answer is known. Times in minutes from the world's begin.
 */
#include "tests/unit/core/cluster.h"

#include "daemon/core/timeline.h"
#include "tests/unit/random.h"

/* ---------------------------------------------------------------- backfill */

/* The large gang gets a time and nodes; a short job fills the hole, a long one and one without a
 * limit do not; the gang starts when it was planned to. */
static void test_backfill(void **state)
{
    (void)state;
    nodes(4, 8);
    uint64_t first = submit(3, 8, 2 * HOUR);
    uint64_t gang = submit(4, 8, HOUR);
    uint64_t long_one = submit(1, 8, 3 * HOUR);
    uint64_t endless = submit(1, 8, 0);
    uint64_t short_one = submit(1, 8, HOUR);
    assert_true(runs(first));
    assert_false(runs(gang));
    assert_false(runs(long_one));
    assert_false(runs(endless));
    assert_true(runs(short_one));
    int64_t planned_ms = world_job(&w, gang)->wait.start_ms;
    assert_int_equal(planned_ms, T0 + 2 * HOUR + 10000);
    assert_why(gang, "resources",
               "needs 4 nodes with 8 free accelerators each: 0 free, 4 busy; planned to start by");
    assert_why(long_one, "queue", "job 2 (j) goes first, planned for 02:");
    assert_why(endless, "queue", "(without a time_limit it fills no gaps)");
    assert_int_equal(core_expected_start_ms(w.core, gang), planned_ms);
    pass_time(50 * MINUTE);
    end_all(short_one, 0);
    assert_false(runs(long_one));
    assert_why(long_one, "queue", "1 held for job 2 until 02:");
    pass_time(60 * MINUTE);
    end_all(first, 0);
    assert_true(runs(gang));
}

/* A stream of small jobs, one every minute, does not keep a gang of the whole cluster waiting. */
static void test_no_starvation(void **state)
{
    (void)state;
    nodes(4, 1);
    for (int i = 0; i < 4; i++) {
        submit(1, 1, 30 * MINUTE);
    }
    uint64_t gang = submit(4, 1, HOUR);
    int64_t promised_ms = world_job(&w, gang)->wait.start_ms;
    int64_t waited_ms = 0;
    for (; !runs(gang) && waited_ms < 10 * HOUR; waited_ms += MINUTE) {
        submit(1, 1, 30 * MINUTE);
        pass_time(MINUTE);
        for (uint64_t id = 1; id < w.core->next_job; id++) {
            if (id != gang && runs(id) &&
                w.now_ms - world_job(&w, id)->attempt->row.started_ms >= 20 * MINUTE) {
                end_all(id, 0);
            }
        }
    }
    assert_true(runs(gang));
    assert_true(w.now_ms <= promised_ms);
}

/* Higher priority first, whoever came first; among equals the one who waits longer. */
static void test_priority(void **state)
{
    (void)state;
    nodes(1, 1);
    uint64_t first = submit(1, 1, HOUR);
    uint64_t low = submit_as("u", 1, 1, HOUR, -10);
    uint64_t high = submit_as("u", 1, 1, HOUR, 10);
    uint64_t normal = submit(1, 1, HOUR);
    uint64_t order[] = {first, high, normal, low};
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 4; j++) {
            assert_int_equal(runs(order[j]), i == j);
        }
        end_all(order[i], 0);
    }
}

/* Who used more waits longer: of two users with equal jobs the one goes first whose use has faded.
 */
static void test_fair_share(void **state)
{
    (void)state;
    nodes(1, 4);
    uint64_t greedy = submit_as("greedy", 1, 4, 0, 0);
    pass_time(2 * HOUR);
    uint64_t promised = submit_as("other", 1, 4, HOUR, 0);
    uint64_t again = submit_as("greedy", 1, 4, HOUR, 0);
    uint64_t modest = submit_as("modest", 1, 4, HOUR, 0);
    end_all(greedy, 0);
    end_all(promised, 0);
    assert_true(runs(modest));
    assert_false(runs(again));
    double used = share_used_of("greedy");
    assert_true(used > 7.9 * HOUR && used < 8 * HOUR);
    pass_time(7 * 24 * HOUR);
    assert_true(share_used_of("greedy") > used * 0.499 && share_used_of("greedy") < used * 0.501);
}

/* ---------------------------------------------------------------- maintenance */

/* Whoever got no answer may ask again: the window is planned once. Another one is another. */
static void test_window_twice(void **state)
{
    (void)state;
    nodes(2, 1);
    uint64_t id = maintain("n01", T0 + 2 * HOUR, HOUR);
    assert_int_equal(maintain("n01", T0 + 2 * HOUR, HOUR), id);
    assert_int_equal(w.core->reservation_count, 1);
    assert_int_equal(maintain("n02", T0 + 2 * HOUR, HOUR), 2);
    assert_int_equal(maintain("n01", T0 + 2 * HOUR, 2 * HOUR), 3);
    struct input in = {.kind = INPUT_RESERVATION_CANCEL, .token = ++w.token};
    in.u.reservation.id = id;
    world_step(&w, &in);
    assert_int_equal(maintain("n01", T0 + 2 * HOUR, HOUR), 4);
}

/* A job whose limit crosses the window does not start there, one that is done before does; at the
 * window's start the node is MAINT, what still runs goes back to the queue, and it comes back. */
static void test_maintenance(void **state)
{
    (void)state;
    nodes(2, 1);
    uint64_t id = maintain("n01", T0 + 2 * HOUR, HOUR);
    assert_int_equal(id, 1);
    uint64_t endless = submit(1, 1, 0);
    assert_true(runs(endless));
    assert_string_equal(world_job(&w, endless)->attempt->nodes[0].node->row.name, "n02");
    uint64_t long_one = submit(1, 1, 3 * HOUR);
    assert_false(runs(long_one));
    assert_why(long_one, "resources", "1 due for maintenance 1 at 02:");
    uint64_t short_one = submit(1, 1, HOUR);
    assert_true(runs(short_one));
    start_all(short_one);
    pass_time(HOUR);
    end_all(short_one, 0);
    pass_time(HOUR);
    struct node *node = core_node_by_name(w.core, "n01");
    assert_int_equal(node->row.state, NODE_MAINT);
    assert_int_equal(world_gpu(&w, node->gpus[0]->row.id)->category, CATEGORY_PLANNED_DOWN);
    assert_int_equal(world_job(&w, long_one)->wait.start_ms, T0 + 3 * HOUR);
    pass_time(HOUR + MINUTE);
    assert_int_equal(node->row.state, NODE_UP);
    assert_true(runs(long_one));
    maintain("n02", w.now_ms, HOUR);
    assert_int_equal(world_job(&w, endless)->row.state, JOB_STOPPING);
    end_all(endless, 80);
    assert_int_equal(world_job(&w, endless)->row.state, JOB_PENDING);
    assert_int_equal(world_job(&w, endless)->row.fruitless, 0);
    assert_int_equal(core_node_by_name(w.core, "n02")->row.state, NODE_MAINT);
    struct input in = {.kind = INPUT_RESERVATION_CANCEL, .token = ++w.token};
    in.u.reservation.id = 2;
    world_step(&w, &in);
    assert_true(runs(endless));
    in.token = ++w.token;
    world_step(&w, &in);
    assert_int_equal(world_code(&w), ERR_CONFLICT);
    assert_int_equal(maintain("n09", T0, HOUR), 0);
    assert_int_equal(maintain("n01", T0, 1), 0);
}

/* ---------------------------------------------------------------- rules */

/* Each limit of a queue holds a job back and is named; when it is lifted the job starts. */
static void test_queue_limits(void **state)
{
    (void)state;
    nodes(4, 1);
    uint64_t a = submit(2, 1, HOUR);
    set_queue("default", QUEUE_FIELD_NODES_MAX, (struct input_queue_set){.nodes_max = 3});
    uint64_t b = submit(2, 1, HOUR);
    assert_why(b, "queue_limit", "queue default has 2 nodes, at most 3 are allowed");
    set_queue("default", QUEUE_FIELD_NODES_MAX | QUEUE_FIELD_JOBS_MAX,
              (struct input_queue_set){.nodes_max = ROW_NONE, .jobs_max = 1});
    assert_why(b, "queue_limit", "queue default runs 1 jobs, at most 1 may");
    set_queue("default", QUEUE_FIELD_JOBS_MAX | QUEUE_FIELD_STARTS,
              (struct input_queue_set){.jobs_max = ROW_NONE, .starts = false});
    assert_why(b, "queue_stopped", "queue default starts no jobs now");
    set_queue("default", QUEUE_FIELD_STARTS | QUEUE_FIELD_USER_NODES_MAX,
              (struct input_queue_set){.starts = true, .user_nodes_max = 2});
    assert_why(b, "user_limit", "user u in queue default has 2 nodes, at most 2 are allowed");
    uint64_t c = submit_as("v", 2, 1, HOUR, 0);
    assert_true(runs(a) && runs(c) && !runs(b));
    end_all(a, 0);
    assert_true(runs(b));
    set_queue("default", QUEUE_FIELD_ACCEPTS, (struct input_queue_set){.accepts = false});
    assert_int_equal(submit(1, 1, HOUR), 0);
    struct jobspec spec = world_spec(1, 1);
    static char other[] = "nosuch";
    spec.queue = other;
    assert_int_equal(world_submit_spec(&w, &spec, NULL, "h"), 0);
    assert_non_null(strstr(world_effect(&w, EFFECT_REPLY, 0)->u.reply.text,
                           "key 'queue': nosuch does not exist"));
}

/* A quota counts what its user, account and class hold together, each for himself with `*`, until
 * it expires. */
static void test_quota(void **state)
{
    (void)state;
    nodes(4, 1);
    struct input in = {.kind = INPUT_QUOTA_SET, .token = ++w.token};
    in.u.quota = (struct input_quota_set){
        .user = "*", .class = "normal", .nodes = 1, .by_user = "op", .expires_ms = T0 + HOUR};
    world_step(&w, &in);
    assert_int_equal(world_code(&w), 0);
    assert_true(world_had_event(&w, "quota.set"));
    uint64_t a = submit_as("a", 1, 1, 0, 0), b = submit_as("b", 1, 1, 0, 0);
    uint64_t more = submit_as("a", 1, 1, 0, 0);
    uint64_t urgent = submit_as("a", 1, 1, 0, 2000);
    assert_true(runs(a) && runs(b) && runs(urgent) && !runs(more));
    assert_why(more, "quota",
               "quota 1 allows user a 1 nodes at priority class normal: 1 in use, the job needs 1");
    pass_time(HOUR + MINUTE);
    assert_true(runs(more));
    assert_true(world_had_event(&w, "quota.expired"));
    in.token = ++w.token;
    in.u.quota.class = "nosuch";
    world_step(&w, &in);
    assert_int_equal(world_code(&w), ERR_INVALID);
}

/* ---------------------------------------------------------------- preemption */

/* Two victims would do; the one that loses least since its newest checkpoint is taken, asked to
 * save, and goes on where it was after the preemptor. The job that is not preemptible is left
 * alone. */
static void test_preemption(void **state)
{
    (void)state;
    nodes(3, 1);
    struct jobspec spec = world_spec(1, 1);
    spec.preemptible = BY_POLICY_NO;
    uint64_t rock = world_submit_spec(&w, &spec, NULL, "h");
    uint64_t a = submit(1, 1, 0), b = submit(1, 1, 0);
    start_all(a);
    start_all(b);
    pass_time(20 * MINUTE);
    struct attempt *attempt = world_job(&w, b)->attempt;
    session_id session = attempt->nodes[0].node->session;
    world_steps(&w, session, b, 1, 5, 0, 0);
    world_shard(&w, session, b, 1, 5, 1, 0);
    uint64_t urgent = submit_as("v", 1, 1, HOUR, 100);
    assert_int_equal(world_job(&w, a)->row.state, JOB_RUNNING);
    assert_int_equal(world_job(&w, b)->row.state, JOB_STOPPING);
    assert_int_equal(world_job(&w, rock)->row.state, JOB_STARTING);
    assert_string_equal(world_job(&w, b)->row.stop_cause, "preempt");
    assert_why(urgent, "preemption", "starts when 1 job has saved and stopped for it, first job 3");
    const struct effect *stop = world_effect(&w, EFFECT_ATTEMPT_STOP, 0);
    assert_int_equal(stop->u.stop.grace_ms, attempt->row.stop_grace_ms);
    struct input acked = {.kind = INPUT_STOP_ACKED, .session = session};
    acked.u.acked.job = b;
    acked.u.acked.epoch = 1;
    world_step(&w, &acked);
    assert_int_equal(attempt->row.stop_acked_ms, w.now_ms);
    world_steps(&w, session, b, 1, 6, 0, 0);
    pass_time(7000);
    world_shard(&w, session, b, 1, 6, 1, 0);
    assert_int_equal(world_job(&w, b)->attempt->row.saved_ms, w.now_ms);
    assert_int_equal(world_job(&w, b)->row.save_ms, 7000);
    end_all(b, 80);
    assert_int_equal(world_job(&w, b)->row.state, JOB_PENDING);
    assert_int_equal(world_job(&w, b)->row.preempted, 1);
    assert_int_equal(world_job(&w, b)->row.fruitless, 0);
    assert_true(runs(urgent));
    end_all(urgent, 0);
    assert_true(runs(b));
    assert_int_equal(world_job(&w, b)->attempt->row.resume_step, 6);
}

/* Nobody is stopped when that would not start the job, nor one who has not had his least run time;
 * then the pass comes back when he has. */
static void test_preemption_is_proven(void **state)
{
    (void)state;
    nodes(2, 1);
    struct jobspec spec = world_spec(1, 1);
    spec.preemptible = BY_POLICY_NO;
    uint64_t rock = world_submit_spec(&w, &spec, NULL, "h");
    uint64_t soft = submit(1, 1, 0);
    start_all(rock);
    start_all(soft);
    pass_time(30 * MINUTE);
    uint64_t gang = submit_as("v", 2, 1, HOUR, 100);
    assert_true(runs(soft) && runs(rock) && !runs(gang));
    world_order(&w, INPUT_JOB_CANCEL, gang);
    end_all(soft, 0);
    soft = submit(1, 1, 0);
    start_all(soft);
    uint64_t urgent = submit_as("v", 1, 1, HOUR, 100);
    assert_true(runs(soft) && !runs(urgent));
    pass_time(15 * MINUTE - 30000);
    assert_true(runs(soft));
    pass_time(MINUTE);
    assert_int_equal(world_job(&w, soft)->row.state, JOB_STOPPING);
}

/* A gang of high priority that crashes 35 times: it may make others stop a few times, and never
 * because it crashed. */
static void test_preemption_storm(void **state)
{
    (void)state;
    nodes(4, 1);
    uint64_t victims[4];
    for (int i = 0; i < 4; i++) {
        victims[i] = submit(1, 1, 0);
        start_all(victims[i]);
    }
    pass_time(30 * MINUTE);
    struct jobspec spec = world_spec(2, 1);
    spec.priority = 1000;
    spec.restart_max = 100;
    uint64_t storm = world_submit_spec(&w, &spec, NULL, "h");
    int64_t stopped = 0;
    int crashes = 0;
    for (int round = 0; round < 60; round++) {
        if (round == 20) { /* two of them are done: there is room */
            world_order(&w, INPUT_JOB_CANCEL, victims[0]);
            world_order(&w, INPUT_JOB_CANCEL, victims[1]);
        }
        for (int i = 0; i < 4; i++) {
            struct job *job = world_job(&w, victims[i]);
            if (job == NULL) {
                continue;
            }
            if (job->row.state == JOB_STOPPING) {
                end_all(victims[i], 80);
            } else if (job->row.state == JOB_STARTING) {
                start_all(victims[i]);
            }
        }
        struct job *job = world_job(&w, storm);
        if (runs(storm)) {
            start_all(storm);
            world_report_exit(&w, job->attempt->nodes[0].node->session, storm,
                              (uint64_t)job->row.epoch, 3, world_exit(&w, 0, 75));
            job = world_job(&w, storm);
            world_report_exit(&w, job->attempt->nodes[1].node->session, storm,
                              (uint64_t)job->row.epoch, 3, world_exit(&w, 1, 85));
            crashes++;
        }
        pass_time(11 * MINUTE);
    }
    for (int i = 2; i < 4; i++) {
        stopped += world_job(&w, victims[i])->row.preempted;
    }
    assert_true(stopped <= 2);
    assert_int_equal(world_job(&w, storm)->row.preempts, 1);
    assert_true(crashes >= 35);
}

/* ---------------------------------------------------------------- places */

/* A gang is packed into one leaf when one holds it, else into as few as possible; expert groups are
 * whole within a leaf; the crossings are counted; `placement: leaf` waits for one leaf. */
static void test_topology(void **state)
{
    (void)state;
    static const struct policy_place places[] = {{"n[01-04]", "a", "r1", "leaf1"},
                                                 {"n[05-07]", "a", "r1", "leaf2"},
                                                 {"n[08-09]", "a", "r2", "leaf3"}};
    struct core_config config;
    core_config_default(&config);
    config.policy.places = places;
    config.policy.place_count = 3;
    world_fini(&w);
    begin(&config);
    nodes(9, 8);
    assert_string_equal(core_node_by_name(w.core, "n06")->row.leaf, "leaf2");
    uint64_t two = submit(2, 8, HOUR); /* the tightest leaf that holds it */
    assert_string_equal(world_job(&w, two)->attempt->nodes[0].node->row.name, "n08");
    assert_int_equal(world_job(&w, two)->attempt->row.crossings, 0);
    struct jobspec spec = world_spec(6, 8);
    spec.train.expert = 16; /* groups of two nodes */
    uint64_t six = world_submit_spec(&w, &spec, NULL, "h");
    struct attempt *attempt = world_job(&w, six)->attempt;
    for (int i = 0; i < 6; i += 2) {
        assert_string_equal(attempt->nodes[i].node->row.leaf, attempt->nodes[i + 1].node->row.leaf);
    }
    assert_int_equal(attempt->row.crossings, 1);
    spec = world_spec(3, 8);
    spec.placement = PLACEMENT_LEAF;
    spec.time_limit_ms = HOUR;
    uint64_t three = world_submit_spec(&w, &spec, NULL, "h");
    assert_false(runs(three));
    assert_why(three, "resources", "needs 3 nodes with 8 free accelerators each in one leaf");
    end_all(two, 0);
    assert_false(runs(three)); /* three are free, in two leaves */
    end_all(six, 0);
    assert_true(runs(three));
    attempt = world_job(&w, three)->attempt;
    assert_string_equal(attempt->nodes[0].node->row.leaf, attempt->nodes[2].node->row.leaf);
    spec.nodes_min = spec.nodes_max = 5;
    assert_int_equal(world_submit_spec(&w, &spec, NULL, "h"), 0);
    assert_non_null(strstr(world_effect(&w, EFFECT_REPLY, 0)->u.reply.text,
                           "the cluster has 4 such nodes of 9 in one leaf"));
}

/* An elastic job takes what there is between its sizes, and another size when it starts again. */
static void test_elastic(void **state)
{
    (void)state;
    nodes(4, 1);
    uint64_t other = submit(2, 1, 0);
    struct jobspec spec = world_spec(1, 1);
    spec.nodes_max = 3;
    uint64_t job = world_submit_spec(&w, &spec, NULL, "h");
    assert_int_equal(world_job(&w, job)->attempt->node_count, 2);
    start_all(job);
    end_all(other, 0);
    assert_int_equal(world_job(&w, job)->attempt->node_count, 2);
    end_all(job, 75);
    assert_int_equal(world_job(&w, job)->attempt->node_count, 3);
    struct input in = {.kind = INPUT_JOB_RESIZE, .token = ++w.token};
    in.u.resize.job = job;
    in.u.resize.nodes_min = in.u.resize.nodes_max = 4;
    world_step(&w, &in);
    assert_int_equal(world_code(&w), 0);
    assert_int_equal(world_job(&w, job)->row.state, JOB_STOPPING);
    end_all(job, 80);
    assert_int_equal(world_job(&w, job)->attempt->node_count, 4);
    in.token = ++w.token;
    in.u.resize.nodes_min = in.u.resize.nodes_max = 5;
    world_step(&w, &in);
    assert_int_equal(world_code(&w), ERR_INVALID);
}

/* A spare of the job stands by and takes the place of a lost node at once; one of the cluster is
 * not given to a job that just begins. */
static void test_spares(void **state)
{
    (void)state;
    nodes(3, 1);
    struct jobspec spec = world_spec(2, 1);
    spec.spares = 1;
    uint64_t job = world_submit_spec(&w, &spec, NULL, "h");
    assert_int_equal(core_node(w.core, 3)->row.spare_job, job);
    uint64_t other = submit(1, 1, HOUR);
    assert_false(runs(other));
    assert_why(other, "resources", "1 kept as spare");
    start_all(job);
    world_gone(&w, 1);
    for (int i = 0; i < 4; i++) {
        world_run_to(&w, w.now_ms + 10000);
        world_heartbeat(&w, 2);
        world_heartbeat(&w, 3);
    }
    end_all(job, 85);
    assert_true(runs(job));
    assert_string_equal(world_job(&w, job)->attempt->nodes[1].node->row.name, "n03");
    assert_int_equal(core_node(w.core, 3)->row.spare_job, 0);
    world_order(&w, INPUT_JOB_CANCEL, job);
    end_all(job, 80);
    assert_true(runs(other));
}

/* ---------------------------------------------------------------- prediction */

/* What is predicted for a submit is what then happens. */
static void test_plan(void **state)
{
    (void)state;
    nodes(2, 1);
    struct core_plan plan;
    struct jobspec spec = world_spec(2, 1);
    spec.time_limit_ms = HOUR;
    struct input_submit request = {
        .spec = &spec, .spec_json = "{}", .workdir = "/", .user = "u", .request_hash = "h"};
    uint64_t before = core_digest(w.core);
    core_plan_submit(w.core, &request, w.now_ms, &plan);
    assert_int_equal(plan.action, PLAN_START);
    assert_string_equal(plan.node_names, "n01,n02");
    assert_true(core_digest(w.core) == before);
    uint64_t a = world_submit_spec(&w, &spec, NULL, "h");
    assert_true(runs(a));
    core_plan_submit(w.core, &request, w.now_ms, &plan);
    assert_int_equal(plan.action, PLAN_WAIT);
    assert_int_equal(plan.start_ms, T0 + HOUR + 10000);
    uint64_t b = world_submit_spec(&w, &spec, NULL, "h");
    assert_int_equal(world_job(&w, b)->wait.start_ms, plan.start_ms);
    core_plan_submit(w.core, &request, w.now_ms, &plan);
    assert_int_equal(plan.behind, b);
    assert_int_equal(plan.start_ms, T0 + 2 * (HOUR + 10000));
    start_all(a);
    pass_time(20 * MINUTE);
    spec.priority = 5;
    core_plan_submit(w.core, &request, w.now_ms, &plan);
    assert_int_equal(plan.action, PLAN_PREEMPT);
    assert_int_equal(plan.victim_count, 1);
    assert_int_equal(plan.victims[0], a);
    assert_true(runs(a));
    spec.nodes_min = spec.nodes_max = 3;
    core_plan_submit(w.core, &request, w.now_ms, &plan);
    assert_int_equal(plan.action, PLAN_REFUSED);
    assert_non_null(strstr(plan.text, "can never start"));
    assert_null(core_check(w.core));
}

/* ---------------------------------------------------------------- promises */

/* A blocked job that was promised a start keeps its place: not a user who used nothing, nor a
 * shorter job, only a higher priority gets before it; and not even that when it is overdue. */
static void test_promise(void **state)
{
    (void)state;
    nodes(2, 1);
    uint64_t running = submit_as("greedy", 2, 1, 10 * HOUR, 0);
    pass_time(9 * HOUR);
    uint64_t gang = submit_as("greedy", 2, 1, 2 * HOUR, 0);
    int64_t promised_ms = world_job(&w, gang)->row.promised_ms;
    assert_int_equal(promised_ms, world_job(&w, gang)->wait.start_ms);
    uint64_t modest = submit_as("modest", 2, 1, 2 * HOUR, 0);
    uint64_t brief = submit_as("modest", 2, 1, MINUTE, 0);
    uint64_t high = submit_as("modest", 2, 1, HOUR, 100);
    pass_time(30 * MINUTE);
    end_all(running, 0);
    assert_true(runs(high));
    assert_int_equal(world_job(&w, gang)->row.promised_ms, promised_ms);
    assert_false(runs(modest) || runs(brief));
    world_order(&w, INPUT_JOB_CANCEL, modest);
    world_order(&w, INPUT_JOB_CANCEL, brief);
    for (int i = 0; i < 30 && !runs(gang); i++) { /* a stream of higher ones */
        uint64_t next = submit_as("modest", 2, 1, HOUR, 100);
        assert_true(runs(high));
        pass_time(50 * MINUTE);
        end_all(high, 0);
        high = next;
    }
    assert_true(runs(gang));
    /* a day, and what then ran */
    assert_true(w.now_ms - world_job(&w, gang)->row.submitted_ms < 25 * HOUR + 10 * MINUTE);
    assert_true(world_job(&w, gang)->row.promised_ms == ROW_NONE);
}

/* The nodes of a gang that ends one by one do not go to small jobs before the next gang has seen
 * them all; one that is left over goes after a while. */
static void test_gather(void **state)
{
    (void)state;
    nodes(3, 1);
    uint64_t old = submit(3, 1, 10 * HOUR);
    start_all(old);
    uint64_t gang = submit(3, 1, HOUR);
    uint64_t small = submit(1, 1, 2 * MINUTE);
    uint64_t epoch = 1;
    for (uint32_t i = 0; i < 3; i++) {
        world_report_exit(&w, i + 1, old, epoch, 3, world_exit(&w, i, 0));
        assert_false(runs(small));
    }
    assert_true(runs(gang));
    start_all(gang);
    world_report_exit(&w, 1, gang, epoch, 3, world_exit(&w, 0, 0));
    pass_time(9000);
    assert_false(runs(small));
    pass_time(2000);
    assert_true(runs(small)); /* the other two have still not ended */
}

/* A gang that failed finds its nodes where it left them, though others would fit there; while it
 * backs off too, but no longer than restart_hold. */
static void test_restart_keeps_its_nodes(void **state)
{
    (void)state;
    nodes(3, 1);
    struct jobspec spec = world_spec(3, 1);
    spec.time_limit_ms = HOUR;
    spec.restart_max = 9;
    uint64_t gang = world_submit_spec(&w, &spec, NULL, "h");
    uint64_t small = submit(1, 1, MINUTE);
    start_all(gang);
    end_all(gang, 75);
    assert_true(runs(gang));
    start_all(gang);
    end_all(gang, 75);
    assert_false(runs(gang)); /* 10 s */
    pass_time(9000);
    assert_false(runs(small));
    pass_time(1000);
    assert_true(runs(gang));
    for (int64_t wait_ms = 20000; wait_ms < 120000; wait_ms *= 2) {
        start_all(gang);
        end_all(gang, 75);
        pass_time(wait_ms - 1000);
        assert_false(runs(small));
        pass_time(1000);
        assert_true(runs(gang));
    }
    start_all(gang);
    end_all(gang, 75); /* 160 s: too long to keep others waiting */
    assert_true(runs(small));
}

/* An idle spare is the expense of the job that keeps it. */
static void test_spares_are_held(void **state)
{
    (void)state;
    nodes(2, 1);
    struct jobspec spec = world_spec(1, 1);
    spec.spares = 1;
    uint64_t job = world_submit_spec(&w, &spec, NULL, "h");
    assert_int_equal(world_gpu(&w, 2)->category, CATEGORY_HELD);
    assert_int_equal(world_gpu(&w, 2)->job_id, job);
    start_all(job);
    pass_time(HOUR);
    end_all(job, 0);
    assert_int_equal(world_booked(&w, 2, CATEGORY_HELD, job), HOUR);
    assert_int_equal(world_booked(&w, 2, CATEGORY_IDLE, 0), 0);
    assert_int_equal(world_gpu(&w, 2)->category, CATEGORY_IDLE);
}

/* What its owner said about a job's start holds after it was suspended, though it ran before. */
static void test_not_before_outlives_a_suspension(void **state)
{
    (void)state;
    nodes(1, 1);
    uint64_t job = submit(1, 1, HOUR);
    start_all(job);
    world_order(&w, INPUT_JOB_SUSPEND, job);
    end_all(job, 80);
    struct input in = {.kind = INPUT_JOB_UPDATE, .token = ++w.token};
    in.u.update = (struct input_job_update){
        .job = job, .fields = JOB_FIELD_NOT_BEFORE, .not_before_ms = w.now_ms + HOUR};
    world_step(&w, &in);
    world_order(&w, INPUT_JOB_RESUME, job);
    assert_false(runs(job));
    pass_time(HOUR);
    assert_true(runs(job));
}

/* ---------------------------------------------------------------- property */

/* In random clusters, with all the jobs that fill holes or without them: the first blocked job is
 * planned for the same time or an earlier one, and no pass moves it back. */
static void test_backfill_never_delays(void **state)
{
    (void)state;
    random_start("backfill");
    for (int round = 0; round < 60; round++) {
        world_fini(&w);
        world_init(&w);
        int count = 2 + (int)random_below(8);
        nodes(count, 4);
        for (int i = 0; i < count; i++) {
            bool whole = random_one_in(2);
            submit(1 + (uint32_t)random_below(2), whole ? 4 : 1 + (uint32_t)random_below(4),
                   (int64_t)(10 + random_below(200)) * MINUTE);
        }
        while (w.core->queue_count > 0) { /* only what runs stays */
            world_order(&w, INPUT_JOB_CANCEL, w.core->queue[0]->row.id);
        }
        struct jobspec spec = world_spec((uint32_t)count, 4);
        spec.time_limit_ms = 100 * MINUTE;
        uint64_t gang = world_submit_spec(&w, &spec, NULL, "h");
        if (runs(gang)) {
            continue;
        }
        int64_t promised_ms = world_job(&w, gang)->wait.start_ms;
        for (int i = 0; i < 40; i++) {
            submit(1, 1 + (uint32_t)random_below(4), (int64_t)(5 + random_below(250)) * MINUTE);
            assert_true(world_job(&w, gang)->wait.start_ms <= promised_ms);
        }
        while (!runs(gang) && w.now_ms <= promised_ms + MINUTE) {
            pass_time(MINUTE);
            for (uint64_t id = 1; id < w.core->next_job; id++) {
                struct job *job = world_job(&w, id);
                if (id != gang && job != NULL && job->row.state == JOB_STOPPING) {
                    end_all(id, 0); /* its limit is over */
                }
            }
            assert_true(runs(gang) || world_job(&w, gang)->wait.start_ms <= promised_ms ||
                        w.now_ms >= promised_ms);
        }
        assert_true(runs(gang));
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_backfill),
        TEST(test_no_starvation),
        TEST(test_priority),
        TEST(test_fair_share),
        TEST(test_window_twice),
        TEST(test_maintenance),
        TEST(test_queue_limits),
        TEST(test_quota),
        TEST(test_preemption),
        TEST(test_preemption_is_proven),
        TEST(test_preemption_storm),
        TEST(test_topology),
        TEST(test_elastic),
        TEST(test_spares),
        TEST(test_plan),
        TEST(test_promise),
        TEST(test_gather),
        TEST(test_restart_keeps_its_nodes),
        TEST(test_spares_are_held),
        TEST(test_not_before_outlives_a_suspension),
        TEST(test_backfill_never_delays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
