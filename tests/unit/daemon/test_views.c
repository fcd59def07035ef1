/* The views over tables that the real core and store filled. */
#include "tests/unit/daemon/live.h"

/* A gang of two nodes and four ranks that has trained 30 steps, with a checkpoint at 20. The job
 * has id 1, epoch 1. */
static void train(struct live *l)
{
    assert_int_equal(live_register(l, 1, "n1", "fast", 2), 0);
    assert_int_equal(live_register(l, 2, "n2", "fast", 2), 0);
    live_wait(l, 1000);
    uint64_t job = live_submit(
        l,
        &(struct live_job){
            .name = "gang", .user = "eve", .account = "lab", .queue = "q", .nodes = 2, .gpus = 2});
    assert_int_equal(job, 1);
    assert_int_equal(l->started, 2);
    for (session_id s = 1; s <= 2; s++) {
        assert_int_equal(live_report(l, s, 1, 1, 2, NULL, 0), 0);
    }
    live_wait(l, 500);
    assert_int_equal(live_steps(l, 1, 1, 1, 10), 0);
    live_wait(l, 500);
    assert_int_equal(live_steps(l, 1, 1, 1, 20), 0);
    for (uint32_t rank = 0; rank < 4; rank++) {
        assert_int_equal(live_shard(l, 1 + rank / 2, 1, 1, 20, 4, rank), 0);
    }
    live_wait(l, 500);
    assert_int_equal(live_steps(l, 1, 1, 1, 30), 0);
}

static void finish(struct live *l)
{
    for (session_id s = 1; s <= 2; s++) {
        struct input_exit exits[2] = {{.rank = (uint32_t)(s - 1) * 2, .at_ms = l->now_ms},
                                      {.rank = (uint32_t)(s - 1) * 2 + 1, .at_ms = l->now_ms}};
        assert_int_equal(live_report(l, s, 1, 1, 3, exits, 2), 0);
    }
}

static Ds__Job *job_of(struct live *l, uint64_t id, bool whole)
{
    Ds__Job *job = NULL;
    live_ok(views_job(l->views, id, whole, l->now_ms, &job, &live_err));
    return job;
}

/* ------------------------------------------------------------------ jobs */

/* A running job shows who, where, how far, its checkpoint, and what it used up to this millisecond.
 */
static void test_job(void **state)
{
    struct live *l = *state;
    train(l);
    live_wait(l, 123);
    Ds__Job *job = job_of(l, 1, true);
    assert_string_equal(job->name, "gang");
    assert_string_equal(job->user, "eve");
    assert_string_equal(job->account, "lab");
    assert_string_equal(job->queue, "q");
    assert_string_equal(job->state, "RUNNING");
    assert_null(job->reason);
    assert_null(job->exit);
    assert_int_equal(job->n_nodes, 2);
    assert_string_equal(job->nodes[0], "n1");
    assert_string_equal(job->nodes[1], "n2");
    assert_int_equal(job->attempt, 1);
    assert_int_equal(job->submitted_at, LIVE_T0 + 1000);
    assert_false(job->has_ended_at);
    assert_int_equal(job->progress->step, 30);
    assert_int_equal(job->progress->steps, 100);
    assert_int_equal(job->progress->tokens, 30000);
    assert_true(fabs(job->progress->loss - 4.7) < 1e-9);
    assert_false(job->progress->has_mtp_loss);
    assert_int_equal(job->last_checkpoint->step, 20);
    assert_int_equal(job->last_checkpoint->committed_at, LIVE_T0 + 2000);
    assert_int_equal(job->usage->gpu_ms, 4 * (1500 + 123));
    assert_true(job->usage->productive_gpu_ms > 0);
    assert_true(job->usage->productive_gpu_ms <= job->usage->gpu_ms);
    assert_int_equal(job->n_attempts, 1);
    assert_string_equal(job->attempts[0]->state, "RUNNING");
    assert_int_equal(job->attempts[0]->n_nodes, 2);
    assert_int_equal(job->n_checkpoints, 1);
    assert_int_equal(job->checkpoints[0]->shards, 4);
    assert_true(job->n_events > 2);
    for (size_t i = 1; i < job->n_events; i++) {
        assert_true(job->events[i]->seq > job->events[i - 1]->seq);
    }
    assert_string_equal(job->workdir, "/work");
    assert_non_null(strstr(job->spec, "\"gang\""));
    ds__job__free_unpacked(job, NULL);

    finish(l);
    job = job_of(l, 1, false);
    assert_string_equal(job->state, "COMPLETED");
    assert_int_equal(job->exit->code, 0);
    assert_int_equal(job->n_nodes, 2);
    assert_int_equal(job->n_attempts, 0);
    assert_int_equal(job->ended_at, l->now_ms);
    uint64_t used = job->usage->gpu_ms;
    assert_int_equal(used, 4 * (1500 + 123));
    ds__job__free_unpacked(job, NULL);
    live_wait(l, 100000);
    job = job_of(l, 1, false);
    assert_int_equal(job->usage->gpu_ms, used); /* what has ended costs no more */
    ds__job__free_unpacked(job, NULL);
}

/* Usage by job is the same from a view that saw every row appear and from one opened afterwards. */
static void test_usage_is_incremental(void **state)
{
    struct live *l = *state;
    train(l);
    Ds__Job *job = job_of(l, 1, false);
    ds__job__free_unpacked(job, NULL);
    finish(l);
    struct views *fresh = NULL;
    live_ok(views_open(&fresh, l->dir, NULL, &live_err));
    Ds__Job *again = NULL;
    live_ok(views_job(fresh, 1, false, l->now_ms, &again, &live_err));
    job = job_of(l, 1, false);
    assert_int_equal(job->usage->gpu_ms, again->usage->gpu_ms);
    assert_int_equal(job->usage->productive_gpu_ms, again->usage->productive_gpu_ms);
    assert_int_equal(job->usage->cost_micro_usd, again->usage->cost_micro_usd);
    assert_true(job->usage->cost_micro_usd > 0);
    ds__job__free_unpacked(job, NULL);
    ds__job__free_unpacked(again, NULL);
    views_close(fresh);
}

static size_t count_list(struct live *l, Ds__JobListRequest *r, uint64_t *first)
{
    Ds__JobList *list = NULL;
    live_ok(views_job_list(l->views, r, l->now_ms, &list, &live_err));
    size_t n = list->n_items;
    for (size_t i = 1; i < n; i++) {
        assert_true(list->items[i]->id < list->items[i - 1]->id);
    }
    *first = n > 0 ? list->items[0]->id : 0;
    bool cut = list->has_truncated && list->truncated;
    assert_int_equal(cut, r->has_limit && n == r->limit);
    ds__job_list__free_unpacked(list, NULL);
    return n;
}

/* Filters, limit and pages select what they say, newest first; what waits says why. */
static void test_list(void **state)
{
    struct live *l = *state;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(live_submit(l, &(struct live_job){.name = "j",
                                                           .user = i % 2 ? "odd" : "even",
                                                           .queue = i < 5 ? "small" : "big",
                                                           .nodes = 1,
                                                           .gpus = 1}),
                         i + 1);
    }
    assert_int_equal(live_job_order(l, INPUT_JOB_CANCEL, 20, "no more"), 0);
    assert_int_equal(live_job_order(l, INPUT_JOB_HOLD, 1, "later"), 0);

    uint64_t first;
    Ds__JobListRequest r = DS__JOB_LIST_REQUEST__INIT;
    assert_int_equal(count_list(l, &r, &first), 19);
    assert_int_equal(first, 19);
    r.has_all = r.all = 1;
    assert_int_equal(count_list(l, &r, &first), 20);
    assert_int_equal(first, 20);
    r.has_limit = 1;
    r.limit = 7;
    assert_int_equal(count_list(l, &r, &first), 7);
    r.has_before = 1;
    r.before = 14;
    assert_int_equal(count_list(l, &r, &first), 7);
    assert_int_equal(first, 13);
    r = (Ds__JobListRequest)DS__JOB_LIST_REQUEST__INIT;
    char cancelled[] = "CANCELLED", held[] = "HELD", odd[] = "odd", small[] = "small",
         wrong[] = "LATE";
    r.state = cancelled; /* an ended state means the ended ones, also without all */
    assert_int_equal(count_list(l, &r, &first), 1);
    r.state = held;
    assert_int_equal(count_list(l, &r, &first), 1);
    assert_int_equal(first, 1);
    r.state = NULL;
    r.user = odd;
    r.queue = small;
    assert_int_equal(count_list(l, &r, &first), 2);

    struct err err = {0};
    Ds__JobList *list = NULL;
    r.state = wrong;
    assert_int_equal(views_job_list(l->views, &r, l->now_ms, &list, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "PENDING"));

    Ds__Job *job = job_of(l, 2, false);
    assert_string_equal(job->state, "PENDING");
    assert_non_null(job->reason);
    Ds__Reason *reason = NULL;
    live_ok(views_job_reason(l->views, 2, &reason, &live_err));
    assert_string_equal(reason->text, job->reason->text);
    ds__reason__free_unpacked(reason, NULL);
    ds__job__free_unpacked(job, NULL);
}

/* What is not there is ERR_NOT_FOUND everywhere, with its name in the message. */
static void test_not_found(void **state)
{
    struct live *l = *state;
    struct err err = {0};
    Ds__Job *job = NULL;
    Ds__Node *node = NULL;
    Ds__Ckpt *ckpt = NULL;
    Ds__Reason *reason = NULL;
    Ds__MetricList *metrics = NULL;
    struct views_log_place place = {0};
    Ds__MetricRead read = DS__METRIC_READ__INIT;
    read.job = 77;
    bool flag;
    assert_int_equal(views_job(l->views, 77, true, l->now_ms, &job, &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "77"));
    assert_int_equal(views_job_ended(l->views, 77, &flag, &err), ERR_NOT_FOUND);
    assert_int_equal(views_job_reason(l->views, 77, &reason, &err), ERR_NOT_FOUND);
    assert_int_equal(views_metrics(l->views, &read, &metrics, &err), ERR_NOT_FOUND);
    assert_int_equal(views_node(l->views, "nobody", &node, &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "nobody"));
    assert_int_equal(views_ckpt(l->views, 77, true, &ckpt, &err), ERR_NOT_FOUND);
    assert_int_equal(views_log_place(l->views, 77, 0, &place, &err), ERR_NOT_FOUND);
}

/* Metrics from a step on, in order, so many at most; absent values stay absent. */
static void test_metrics(void **state)
{
    struct live *l = *state;
    train(l);
    Ds__MetricRead r = DS__METRIC_READ__INIT;
    r.job = 1;
    Ds__MetricList *list = NULL;
    live_ok(views_metrics(l->views, &r, &list, &live_err));
    assert_int_equal(list->n_items, 3);
    assert_int_equal(list->items[0]->step, 10);
    assert_false(list->items[0]->has_mtp_loss);
    assert_true(list->items[0]->has_lr);
    assert_false(list->items[0]->has_valid_maxvio);
    assert_null(list->items[0]->layer_maxvio);
    ds__metric_list__free_unpacked(list, NULL);
    r.has_from_step = 1;
    r.from_step = 11;
    r.has_limit = 1;
    r.limit = 1;
    live_ok(views_metrics(l->views, &r, &list, &live_err));
    assert_int_equal(list->n_items, 1);
    assert_int_equal(list->items[0]->step, 20);
    assert_true(list->items[0]->has_valid_maxvio && list->items[0]->valid_maxvio == 0.25);
    assert_string_equal(list->items[0]->layer_maxvio, "1:0.5,2:0.125");
    ds__metric_list__free_unpacked(list, NULL);
}

/* The logs of each rank are on the node that ran it, also after the end; a rank too many is not
 * found. */
static void test_log_place(void **state)
{
    struct live *l = *state;
    struct err err = {0};
    train(l);
    finish(l);
    for (uint32_t rank = 0; rank < 4; rank++) {
        struct views_log_place place = {0};
        live_ok(views_log_place(l->views, 1, rank, &place, &live_err));
        assert_string_equal(place.node, rank < 2 ? "n1" : "n2");
        assert_int_equal(place.epoch, 1);
    }
    struct views_log_place place = {0};
    assert_int_equal(views_log_place(l->views, 1, 4, &place, &err), ERR_NOT_FOUND);
    place.epoch = 2;
    assert_int_equal(views_log_place(l->views, 1, 0, &place, &err), ERR_NOT_FOUND);
    live_wait(l, 1000);
    live_node_order(l, INPUT_NODE_DRAIN, "n1");
    uint64_t waits = live_submit(l, &(struct live_job){.name = "waits", .nodes = 2, .gpus = 2});
    place.epoch = 0;
    assert_int_equal(views_log_place(l->views, waits, 0, &place, &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "never started"));
}

/* ------------------------------------------------------------------ nodes, checkpoints, events,
 * cluster */

/* A node shows its accelerators, who drains it, and whether and when its worker was heard. */
static void test_nodes(void **state)
{
    struct live *l = *state;
    train(l);
    assert_int_equal(live_register(l, 3, "n3", "cpu", 1), 0);
    assert_int_equal(live_node_order(l, INPUT_NODE_DRAIN, "n3"), 0);
    live_input(l, &(struct input){.kind = INPUT_WORKER_GONE, .session = 2});
    Ds__NodeListRequest r = DS__NODE_LIST_REQUEST__INIT;
    Ds__NodeList *list = NULL;
    live_ok(views_node_list(l->views, &r, &list, &live_err));
    assert_int_equal(list->n_items, 3);
    assert_string_equal(list->items[0]->name, "n1");
    assert_true(list->items[0]->connected);
    assert_int_equal(list->items[0]->last_seen_at, l->now_ms);
    assert_false(list->items[1]->connected);
    assert_int_equal(list->items[0]->n_gpus, 2);
    assert_true(list->items[0]->gpus[1]->has_job);
    assert_int_equal(list->items[0]->gpus[1]->job, 1);
    assert_string_equal(list->items[0]->gpus[1]->model, "fast");
    assert_string_equal(list->items[2]->state, "DRAINED");
    assert_string_equal(list->items[2]->reason, "fans");
    assert_string_equal(list->items[2]->by, "op");
    assert_false(list->items[2]->gpus[0]->has_job);
    ds__node_list__free_unpacked(list, NULL);
    char drained[] = "DRAINED";
    r.state = drained;
    live_ok(views_node_list(l->views, &r, &list, &live_err));
    assert_int_equal(list->n_items, 1);
    ds__node_list__free_unpacked(list, NULL);
}

/* A checkpoint shows its shards with their digests; the list is by job, and of an unknown job an
 * error. */
static void test_checkpoints(void **state)
{
    struct live *l = *state;
    train(l);
    Ds__CkptListRequest r = DS__CKPT_LIST_REQUEST__INIT;
    Ds__CkptList *list = NULL;
    live_ok(views_ckpt_list(l->views, &r, &list, &live_err));
    assert_int_equal(list->n_items, 1);
    uint64_t id = list->items[0]->id;
    assert_string_equal(list->items[0]->state, "COMMITTED");
    assert_int_equal(list->items[0]->bytes, 4 * 1000 + 6);
    assert_int_equal(list->items[0]->n_shard_list, 0);
    ds__ckpt_list__free_unpacked(list, NULL);
    r.has_job = 1;
    r.job = 9;
    struct err err = {0};
    assert_int_equal(views_ckpt_list(l->views, &r, &list, &err), ERR_NOT_FOUND);

    Ds__Ckpt *ckpt = NULL;
    live_ok(views_ckpt(l->views, id, true, &ckpt, &live_err));
    assert_int_equal(ckpt->n_shard_list, 4);
    assert_int_equal(ckpt->shard_list[3]->rank, 3);
    assert_int_equal(ckpt->shard_list[3]->bytes, 1003);
    assert_int_equal(strlen(ckpt->shard_list[3]->sha256), 64);
    assert_int_equal(strlen(ckpt->sha256), 64);
    ds__ckpt__free_unpacked(ckpt, NULL);
    bool published = true;
    live_ok(views_ckpt_published(l->views, id, &published, &live_err));
    assert_false(published);
    struct input in = {.kind = INPUT_CKPT_PUBLISHED, .session = 1};
    in.u.ckpt.ckpt = id;
    in.u.ckpt.ok = true;
    live_input(l, &in);
    live_ok(views_ckpt_published(l->views, id, &published, &live_err));
    assert_true(published);
}

/* Reading from any event on, piece by piece, gives every event once and in order; without a start,
 * the newest. */
static void test_events(void **state)
{
    struct live *l = *state;
    train(l);
    finish(l);
    Ds__EventListRequest r = DS__EVENT_LIST_REQUEST__INIT;
    Ds__EventList *list = NULL;
    live_ok(views_events(l->views, &r, &list, &live_err));
    size_t total = list->n_items;
    assert_in_range(total, 5, 100);
    uint64_t last = list->items[total - 1]->seq;
    assert_int_equal(last, core_last_event(l->core));
    ds__event_list__free_unpacked(list, NULL);
    size_t seen = 0;
    r.has_since = r.has_limit = 1;
    r.limit = 3;
    for (;;) {
        live_ok(views_events(l->views, &r, &list, &live_err));
        size_t n = list->n_items;
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(list->items[i]->seq, ++seen);
            r.since = list->items[i]->seq;
        }
        ds__event_list__free_unpacked(list, NULL);
        if (n == 0) {
            break;
        }
    }
    assert_int_equal(seen, total);
    r.has_since = 0;
    r.limit = 2;
    live_ok(views_events(l->views, &r, &list, &live_err));
    assert_int_equal(list->n_items, 2);
    assert_int_equal(list->items[1]->seq, last);
    ds__event_list__free_unpacked(list, NULL);
}

/* The counts of the cluster are those of the tables. */
static void test_cluster(void **state)
{
    struct live *l = *state;
    train(l);
    live_submit(l, &(struct live_job){.name = "waits", .nodes = 1, .gpus = 1});
    Ds__ClusterStatus *s = NULL;
    live_ok(views_cluster(l->views, &s, &live_err));
    assert_int_equal(s->gpus, 4);
    assert_int_equal(s->gpus_allocated, 4);
    assert_int_equal(s->n_nodes, 1);
    assert_string_equal(s->nodes[0]->state, "UP");
    assert_int_equal(s->nodes[0]->count, 2);
    assert_int_equal(s->n_jobs, 2);
    assert_int_equal(s->last_event, core_last_event(l->core));
    assert_true(s->database_bytes > 0);
    ds__cluster_status__free_unpacked(s, NULL);
}

int main(void)
{
#define live_test(name) cmocka_unit_test_setup_teardown(name, live_setup, live_teardown)
    const struct CMUnitTest tests[] = {
        live_test(test_job),     live_test(test_usage_is_incremental),
        live_test(test_list),    live_test(test_not_found),
        live_test(test_metrics), live_test(test_log_place),
        live_test(test_nodes),   live_test(test_checkpoints),
        live_test(test_events),  live_test(test_cluster),
    };
    return cmocka_run_group_tests_name("daemon/views", tests, NULL, NULL);
}
