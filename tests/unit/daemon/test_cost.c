/* The bill over a ledger that a random history wrote: however it is cut and grouped, it adds up to
 * the millisecond and to the micro-dollar. */
#include "daemon/ledger_verify.h"
#include "daemon/views_db.h"
#include "tests/unit/daemon/live.h"
#include "tests/unit/random.h"

static const char *const groupings[] = {"job",   "user", "account",  "stage",
                                        "queue", "node", "category", "month"};
enum { GROUPINGS = sizeof groupings / sizeof groupings[0] };

static Ds__Cost *report(struct live *l, const char *by, int64_t from_ms, int64_t to_ms)
{
    Ds__CostReportRequest r = DS__COST_REPORT_REQUEST__INIT;
    r.by = (char *)by;
    r.has_from_ms = r.has_to_ms = 1;
    r.from_ms = from_ms;
    r.to_ms = to_ms;
    Ds__Cost *cost = NULL;
    live_ok(views_cost(l->views, &r, l->now_ms, &cost, &live_err));
    return cost;
}

static void check_sums(const Ds__Cost *cost, bool whole)
{
    const Ds__Capacity *c = cost->capacity;
    assert_int_equal(c->allocated + c->down + c->planned_down + c->idle, c->reported);
    assert_int_equal(cost->total->gpu_ms, whole ? c->reported : c->allocated);
    uint64_t ms = 0;
    int64_t money = 0;
    for (size_t i = 0; i < cost->n_items; i++) {
        const Ds__CostItem *item = cost->items[i];
        uint64_t parts = item->productive_gpu_ms;
        for (size_t k = 0; k < item->n_badput; k++) {
            parts += item->badput[k]->gpu_ms;
        }
        assert_int_equal(parts, item->gpu_ms);
        assert_true(item->gpu_ms > 0);
        ms += item->gpu_ms;
        money += item->cost_micro_usd;
    }
    assert_int_equal(ms, cost->total->gpu_ms);
    assert_int_equal(money, cost->total->cost_micro_usd);
}

/* ------------------------------------------------------------------ a random history */

struct player {
    bool connected[3];
    uint64_t jobs;
};

static const char *const names[] = {"n1", "n2", "n3"};

static void finish_some(struct live *l, uint64_t jobs)
{
    for (uint64_t job = 1; job <= jobs; job++) {
        if (random_one_in(2)) {
            continue;
        }
        Ds__Job *j = NULL;
        live_ok(views_job(l->views, job, false, l->now_ms, &j, &live_err));
        struct input_exit x = {.rank = 0, .code = random_one_in(3) ? 1 : 0, .at_ms = l->now_ms};
        bool live = strcmp(j->state, "RUNNING") == 0 || strcmp(j->state, "STARTING") == 0;
        for (size_t i = 0; live && i < j->n_nodes; i++) {
            session_id s = (session_id)(j->nodes[i][1] - '0');
            live_report(l, s, job, j->epoch, random_one_in(3) ? 3 : 2, &x, 1);
        }
        ds__job__free_unpacked(j, NULL);
    }
}

static void play(struct live *l, struct player *p)
{
    size_t node = random_below(3);
    switch (random_below(10)) {
    case 0:
    case 1:
        live_register(l, node + 1, names[node], node == 0 ? "fast" : "cpu", 2);
        p->connected[node] = true;
        break;
    case 2:
        live_input(l, &(struct input){.kind = INPUT_WORKER_GONE, .session = node + 1});
        p->connected[node] = false;
        break;
    case 3:
        live_node_order(l, random_one_in(2) ? INPUT_NODE_DRAIN : INPUT_NODE_RESUME, names[node]);
        break;
    case 4:
        if (p->jobs > 0) {
            live_job_order(l, INPUT_JOB_CANCEL, 1 + random_below(p->jobs), NULL);
        }
        break;
    case 5:
    case 6: {
        static const char *const users[] = {"ada", "bob"}, *const stages[] = {"pretrain", "eval"};
        uint64_t id = live_submit(l, &(struct live_job){.name = "j",
                                                        .user = users[random_below(2)],
                                                        .account = users[random_below(2)],
                                                        .queue = random_one_in(2) ? "a" : "b",
                                                        .stage = stages[random_below(2)],
                                                        .nodes = 1 + (uint32_t)random_below(2),
                                                        .gpus = 1 + (uint32_t)random_below(2)});
        p->jobs = id > p->jobs ? id : p->jobs;
        break;
    }
    default:
        finish_some(l, p->jobs);
        live_input(l, &(struct input){.kind = INPUT_HEARTBEAT, .session = node + 1});
    }
}

/* Every grouping of the whole history and of any window adds up, all groupings agree, neighbouring
 * windows add up to the window they tile, and the audit of the same tables agrees. */
static void test_adds_up(void **state)
{
    struct live *l = *state;
    random_start("cost");
    struct player p = {0};
    for (int i = 0; i < 300; i++) {
        play(l, &p);
        live_wait(l, (int64_t)random_below(
                         random_one_in(10) ? 200000000 : 60000)); /* over the end of the month */
    }
    int64_t cuts[6] = {LIVE_T0 - 1000};
    for (int i = 1; i < 5; i++) {
        cuts[i] = cuts[i - 1] + (int64_t)random_below((uint64_t)(l->now_ms - cuts[i - 1]));
    }
    cuts[5] = l->now_ms;
    for (size_t g = 0; g < GROUPINGS; g++) {
        bool by_category = strcmp(groupings[g], "category") == 0;
        Ds__Cost *whole = report(l, groupings[g], 0, INT64_MAX);
        check_sums(whole, by_category);
        uint64_t ms = 0, productive = 0;
        int64_t money = 0;
        for (int i = 0; i < 5; i++) {
            Ds__Cost *part = report(l, groupings[g], cuts[i], cuts[i + 1]);
            check_sums(part, by_category);
            ms += part->total->gpu_ms;
            productive += part->total->productive_gpu_ms;
            money += part->total->cost_micro_usd;
            ds__cost__free_unpacked(part, NULL);
        }
        assert_int_equal(ms, whole->total->gpu_ms);
        assert_int_equal(productive, whole->total->productive_gpu_ms);
        assert_int_equal(money, whole->total->cost_micro_usd);

        struct ledger_verdict verdict;
        live_ok(ledger_verify(l->views->db, l->now_ms, &verdict, &live_err));
        if (!verdict.ok) {
            fail_msg("%s", verdict.problems[0]);
        }
        assert_int_equal(whole->capacity->allocated, verdict.allocated_ms);
        assert_int_equal(whole->capacity->idle, verdict.idle_ms);
        assert_int_equal(whole->capacity->down, verdict.down_ms);
        assert_int_equal(whole->capacity->planned_down, verdict.planned_down_ms);
        assert_int_equal(whole->capacity->reported, verdict.reported_ms);
        ledger_verdict_fini(&verdict);
        ds__cost__free_unpacked(whole, NULL);
    }
}

/* What `job show` says a job used is its line of the bill. */
static void test_usage_is_the_bill(void **state)
{
    struct live *l = *state;
    random_start("usage");
    struct player p = {0};
    for (int i = 0; i < 200; i++) {
        play(l, &p);
        live_wait(l, (int64_t)random_below(5000));
    }
    Ds__Cost *cost = report(l, "job", 0, INT64_MAX);
    assert_true(cost->n_items > 0);
    for (size_t i = 0; i < cost->n_items; i++) {
        const Ds__CostItem *item = cost->items[i];
        Ds__Job *job = NULL;
        live_ok(
            views_job(l->views, strtoull(item->key, NULL, 10), false, l->now_ms, &job, &live_err));
        assert_int_equal(job->usage->gpu_ms, item->gpu_ms);
        assert_int_equal(job->usage->productive_gpu_ms, item->productive_gpu_ms);
        assert_int_equal(job->usage->cost_micro_usd, item->cost_micro_usd);
        ds__job__free_unpacked(job, NULL);
    }
    ds__cost__free_unpacked(cost, NULL);
}

/* An idle node of two accelerators: known milliseconds, known money, cut at a month's end. */
static void test_months(void **state)
{
    struct live *l = *state;
    const int64_t december_ms = 1796083200000; /* 2026-12-01T00:00:00Z */
    assert_int_equal(live_register(l, 1, "n1", "fast", 2), 0);
    uint64_t job = live_submit(l, &(struct live_job){.name = "j", .nodes = 1, .gpus = 2});
    assert_int_equal(job, 1);
    live_report(l, 1, 1, 1, 2, NULL, 0);
    while (l->now_ms < december_ms + 3600000) {
        int64_t left_ms = december_ms + 3600000 - l->now_ms;
        live_wait(l, left_ms < 5000 ? left_ms : 5000);
        live_input(l, &(struct input){.kind = INPUT_HEARTBEAT, .session = 1});
    }
    Ds__Cost *cost = report(l, "month", 0, INT64_MAX);
    assert_int_equal(cost->n_items, 2);
    assert_string_equal(cost->items[0]->key, "2026-11");
    assert_int_equal(cost->items[0]->gpu_ms, 2 * (december_ms - LIVE_T0));
    assert_string_equal(cost->items[1]->key, "2026-12");
    assert_int_equal(cost->items[1]->gpu_ms, 2 * 3600000);
    check_sums(cost, false);
    ds__cost__free_unpacked(cost, NULL);
}

/* A wrong grouping and a window that ends before it begins are refused; an empty window is an empty
 * bill. */
static void test_requests(void **state)
{
    struct live *l = *state;
    struct err err = {0};
    Ds__Cost *cost = NULL;
    Ds__CostReportRequest r = DS__COST_REPORT_REQUEST__INIT;
    char by[] = "moon";
    r.by = by;
    assert_int_equal(views_cost(l->views, &r, l->now_ms, &cost, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "category"));
    r.by = NULL;
    r.has_from_ms = r.has_to_ms = 1;
    r.from_ms = 2;
    r.to_ms = 1;
    assert_int_equal(views_cost(l->views, &r, l->now_ms, &cost, &err), ERR_INVALID);
    live_register(l, 1, "n1", "cpu", 2);
    live_wait(l, 1000);
    cost = report(l, "category", l->now_ms + 5, l->now_ms + 10);
    assert_int_equal(cost->n_items, 0);
    assert_int_equal(cost->capacity->reported, 0);
    ds__cost__free_unpacked(cost, NULL);
    cost = report(l, "category", INT64_MIN, INT64_MAX);
    assert_int_equal(cost->total->gpu_ms, 2000);
    ds__cost__free_unpacked(cost, NULL);
}

int main(void)
{
#define live_test(name) cmocka_unit_test_setup_teardown(name, live_setup, live_teardown)
    const struct CMUnitTest tests[] = {
        live_test(test_adds_up),
        live_test(test_usage_is_the_bill),
        live_test(test_months),
        live_test(test_requests),
    };
    return cmocka_run_group_tests_name("daemon/cost", tests, NULL, NULL);
}
