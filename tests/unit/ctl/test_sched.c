/* The commands that change the scheduler's world: what they ask of the coordinator, and how they
 * say what it answered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ctl/ctl.h"
#include "lib/clock.h"
#include "proto/pbjson.h"
#include "tests/unit/ctl/fake_server.h"

#define T0 1795468134123 /* 2026-11-23T21:08:54.123Z */

/* ---- a coordinator that remembers what it was asked */

static struct {
    char request[2048]; /* the last one, as JSON; optional fields that were absent are null */
    const char *action; /* of its next plan */
} world;

static char *text(const char *literal)
{
    return (char *)(uintptr_t)literal;
}

static void reply_outcomes(struct fake_call *call, const uint64_t *ids, size_t count)
{
    Ds__Outcome items[4];
    Ds__Outcome *list[4];
    Ds__OutcomeList reply = DS__OUTCOME_LIST__INIT;
    assert_true(count <= 4);
    for (size_t i = 0; i < count; i++) {
        list[i] = &items[i];
        ds__outcome__init(&items[i]);
        items[i].id = ids[i];
        items[i].code = ids[i] == 13 ? ERR_CONFLICT : 0;
        items[i].text = text(ids[i] == 13 ? "job 13 is HELD, not SUSPENDED" : "");
    }
    reply.items = list;
    reply.n_items = count;
    fake_reply(call, &reply);
}

static void reply_plan(struct fake_call *call)
{
    Ds__JobPlan plan = DS__JOB_PLAN__INIT;
    Ds__Reason reason = DS__REASON__INIT;
    uint64_t victims[] = {3, 5};
    reason.code = text("resources");
    reason.text = text("needs 2 nodes: 1 free");
    plan.action = text(world.action);
    plan.name = text("hello");
    plan.reason = &reason;
    plan.nodes = 2;
    plan.leaves = 2;
    plan.crossings = 1;
    plan.node_names = text("n1,n2");
    plan.has_behind = strcmp(world.action, "wait") == 0;
    plan.behind = 7;
    plan.has_start_at = plan.has_behind;
    plan.start_at = T0;
    if (strcmp(world.action, "preempt") == 0) {
        plan.victims = victims;
        plan.n_victims = 2;
        plan.victim_count = 20;
    }
    fake_reply(call, &plan);
}

static Ds__Queue some_queue(void)
{
    Ds__Queue q = DS__QUEUE__INIT;
    q.name = text("batch");
    q.priority = -5;
    q.weight = 0.5;
    q.has_nodes_max = q.has_time_limit_ms = 1;
    q.nodes_max = 16;
    q.time_limit_ms = 7200000;
    q.accepts = q.starts = 1;
    q.changed_at = T0;
    q.jobs_running = 2;
    q.nodes_used = 12;
    q.jobs_waiting = 3;
    return q;
}

static void reply_queues(struct fake_call *call, bool list)
{
    Ds__Queue queue = some_queue();
    Ds__Queue *items[] = {&queue};
    Ds__QueueList reply = DS__QUEUE_LIST__INIT;
    reply.items = items;
    reply.n_items = 1;
    fake_reply(call, list ? (const void *)&reply : &queue);
}

static void reply_accounts(struct fake_call *call, bool list)
{
    Ds__AccountUser user = DS__ACCOUNT_USER__INIT;
    Ds__AccountUser *users[] = {&user};
    Ds__Account account = DS__ACCOUNT__INIT;
    Ds__Account *items[] = {&account};
    Ds__AccountList reply = DS__ACCOUNT_LIST__INIT;
    user.user = text("ada");
    user.used_gpu_ms = account.used_gpu_ms = 5400000;
    account.name = text("nlp");
    account.by = text("root");
    account.changed_at = T0;
    account.users = users;
    account.n_users = 1;
    reply.items = items;
    reply.n_items = 1;
    fake_reply(call, list ? (const void *)&reply : &account);
}

static void reply_quotas(struct fake_call *call)
{
    Ds__Quota quota = DS__QUOTA__INIT;
    Ds__Quota *items[] = {&quota};
    Ds__QuotaList reply = DS__QUOTA_LIST__INIT;
    quota.id = 4;
    quota.user = text("*");
    quota.nodes = 8;
    quota.by = text("root");
    quota.has_expires_at = 1;
    quota.expires_at = quota.set_at = T0;
    reply.items = items;
    reply.n_items = 1;
    fake_reply(call, &reply);
}

static void reply_windows(struct fake_call *call)
{
    char *nodes[] = {text("n1"), text("n2"), text("n3")};
    Ds__Reservation window = DS__RESERVATION__INIT;
    Ds__Reservation *items[] = {&window};
    Ds__ReservationList reply = DS__RESERVATION_LIST__INIT;
    window.id = 3;
    window.kind = text("maint");
    window.state = text("PLANNED");
    window.nodes = nodes;
    window.n_nodes = 3;
    window.start_at = T0;
    window.end_at = T0 + 3600000;
    window.reason = text("switch firmware");
    window.by = text("root");
    window.created_at = T0;
    reply.items = items;
    reply.n_items = 1;
    fake_reply(call, &reply);
}

static void answer(struct fake_call *call, uint16_t method, const ProtobufCMessage *request,
                   void *arg)
{
    (void)arg;
    Ds__MaintId made = DS__MAINT_ID__INIT;
    json_t *object = pbjson_from(request, NULL);
    char *json = json_dumps(object, JSON_COMPACT);
    snprintf(world.request, sizeof world.request, "%s", json);
    free(json);
    json_decref(object);
    switch (method) {
    case RPC_JOB_PLAN:
        if (strcmp(world.action, "refused") == 0) {
            fake_refuse(call, ERR_INVALID, "it could never start: 2 nodes");
        } else {
            reply_plan(call);
        }
        break;
    case RPC_JOB_SUSPEND:
    case RPC_JOB_RESUME:
    case RPC_JOB_REQUEUE:
        reply_outcomes(call, ((const Ds__JobCancel *)request)->id,
                       ((const Ds__JobCancel *)request)->n_id);
        break;
    case RPC_JOB_UPDATE:
        reply_outcomes(call, ((const Ds__JobUpdate *)request)->id,
                       ((const Ds__JobUpdate *)request)->n_id);
        break;
    case RPC_JOB_RESIZE:
        reply_outcomes(call, ((const Ds__JobResize *)request)->id,
                       ((const Ds__JobResize *)request)->n_id);
        break;
    case RPC_MAINT_CREATE:
        made.id = 3;
        fake_reply(call, &made);
        break;
    case RPC_MAINT_LIST:
        reply_windows(call);
        break;
    case RPC_MAINT_CANCEL:
        reply_outcomes(call, ((const Ds__MaintIds *)request)->id,
                       ((const Ds__MaintIds *)request)->n_id);
        break;
    case RPC_QUEUE_LIST:
    case RPC_QUEUE_SHOW:
    case RPC_QUEUE_SET:
        reply_queues(call, method == RPC_QUEUE_LIST);
        break;
    case RPC_ACCOUNT_LIST:
    case RPC_ACCOUNT_SHOW:
    case RPC_ACCOUNT_SET:
        reply_accounts(call, method == RPC_ACCOUNT_LIST);
        break;
    case RPC_QUOTA_LIST:
        reply_quotas(call);
        break;
    case RPC_QUOTA_SET:
        fake_reply(call, &(Ds__Empty)DS__EMPTY__INIT);
        break;
    default:
        fake_refuse(call, ERR_DENIED, "not today (ask tomorrow)");
    }
}

/* ---- running dsctl */

static struct fake_server *server;
static char *out;
static char *errors;

static int start(void **state)
{
    (void)state;
    server = fake_server_start(answer, NULL);
    setenv("DS_SERVER", fake_server_address(server), 1);
    setenv("TZ", "UTC", 1);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    fake_server_stop(server);
    free(out);
    free(errors);
    return 0;
}

/* A line as one would type it; quotes are not known. The exit status. */
static int dsctl(const char *line)
{
    char copy[512];
    char *argv[32] = {(char[]){"dsctl"}};
    int argc = 1;
    size_t out_len, errors_len;
    free(out);
    free(errors);
    FILE *out_file = open_memstream(&out, &out_len);
    FILE *errors_file = open_memstream(&errors, &errors_len);
    snprintf(copy, sizeof copy, "%s", line);
    world.request[0] = 0;
    for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " ")) {
        argv[argc++] = word;
    }
    int status = ctl_main(argc, argv, out_file, errors_file);
    fclose(out_file);
    fclose(errors_file);
    return status;
}

static void assert_has(const char *where, const char *part)
{
    if (strstr(where, part) == NULL) {
        fail_msg("without '%s':\n%s", part, where);
    }
}

/* Refused here: nothing was asked, and what is missing is named. */
static void assert_usage(const char *line, const char *part)
{
    assert_int_equal(dsctl(line), 2);
    assert_string_equal(world.request, "");
    assert_string_equal(out, "");
    assert_has(errors, part);
}

/* ---- tests */

/* The action is the exit status; a refusal is an error like that of a submit. */
static void test_plan(void **state)
{
    (void)state;
    char path[] = "/tmp/dsctl-plan-XXXXXX";
    char line[128];
    FILE *f = fdopen(mkstemp(path), "w");
    fputs("name: hello\nnodes: 2\ngpus_per_node: 2\ncommand: \"true\"\n", f);
    fclose(f);
    snprintf(line, sizeof line, "job plan %s --set nodes=3", path);
    world.action = "start";
    assert_int_equal(dsctl(line), 0);
    assert_has(world.request, "\"set\":[\"nodes=3\"]");
    assert_has(world.request, "\"key\":null");
    assert_has(out, "hello would start: ");
    assert_has(out, "n1,n2 (2 leaf switches, 1 crossing)");
    world.action = "wait";
    assert_int_equal(dsctl(line), 1);
    assert_string_equal(errors, "");
    assert_has(out, "hello would wait: needs 2 nodes: 1 free\n");
    assert_has(out, "about 2026-11-23 21:08:54\n");
    assert_has(out, "job 7\n");
    world.action = "preempt";
    assert_int_equal(dsctl(line), 2);
    assert_string_equal(errors, "");
    assert_has(out, "jobs 3, 5 and 18 more\n");
    strcat(line, " -o json");
    assert_int_equal(dsctl(line), 2);
    assert_has(out, "\"schema\": \"ds/job-plan/v1\"");
    assert_has(out, "\"start_at\": null");
    world.action = "refused";
    assert_int_equal(dsctl(line), 1);
    assert_string_equal(out, "");
    assert_has(errors, "it could never start: 2 nodes");
    remove(path);
}

/* Only what is given is sent; none lifts. */
static void test_update(void **state)
{
    (void)state;
    assert_int_equal(dsctl("job update 12 14 --priority -7 --time-limit none --preemptible no"), 0);
    assert_string_equal(out, "updated job 12\nupdated job 14\n");
    assert_has(world.request, "\"id\":[12,14],\"priority\":-7,\"queue\":null");
    assert_has(world.request, "\"time_limit_ms\":0,\"not_before_at\":null,\"deadline_at\":null");
    assert_has(world.request, "\"preemptible\":false,\"min_runtime_ms\":null");
    assert_int_equal(dsctl("job update 12 --deadline 2026-12-01T08:00Z --min-runtime 5m"), 0);
    assert_has(world.request, "\"deadline_at\":\"2026-12-01T08:00:00.000Z\"");
    assert_has(world.request, "\"min_runtime_ms\":300000");
    assert_usage("job update 12", "nothing to change");
    assert_usage("job update --priority 1", "ID");
    assert_usage("job update 12 --priority high", "--priority high");
    assert_usage("job update 12 --priority 99999999999999999999", "--priority");
    assert_usage("job update 12 --deadline soon", "--deadline");
    assert_usage("job update 12 --preemptible perhaps", "yes");
}

static void test_resize(void **state)
{
    (void)state;
    assert_int_equal(dsctl("job resize 12 --nodes 2-8"), 0);
    assert_string_equal(world.request, "{\"id\":[12],\"nodes_min\":2,\"nodes_max\":8}");
    assert_int_equal(dsctl("job resize 12 --nodes 4"), 0);
    assert_has(world.request, "\"nodes_min\":4,\"nodes_max\":4");
    assert_usage("job resize 12", "--nodes 4");
    static const char *const wrong[] = {"0", "8-2", "-3", "4-", "many", "4x", "1-2-3", "999999"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char line[64];
        snprintf(line, sizeof line, "job resize 12 --nodes %s", wrong[i]);
        assert_usage(line, "not a size");
    }
}

static void test_suspend_resume_requeue(void **state)
{
    (void)state;
    assert_int_equal(dsctl("job suspend 12 --reason demo"), 0);
    assert_string_equal(out, "suspended job 12\n");
    assert_has(world.request, "\"reason\":\"demo\"");
    assert_int_equal(dsctl("job resume 12 13"), 8);
    assert_string_equal(out, "resumed job 12\n");
    assert_has(errors, "cannot resume job 13: job 13 is HELD, not SUSPENDED\n");
    assert_int_equal(dsctl("job requeue 13"), 5);
    assert_int_equal(dsctl("job requeue 12 -o json"), 0);
    assert_has(out, "\"schema\": \"ds/outcome-list/v1\"");
}

static void test_maint(void **state)
{
    (void)state;
    char start[CLOCK_TEXT_BYTES];
    assert_int_equal(dsctl("maint create --nodes n[1-3] --start 2026-12-01T08:00Z --duration 90m "
                           "--reason firmware"),
                     0);
    assert_string_equal(out, "planned maintenance 3\n");
    assert_string_equal(world.request,
                        "{\"nodes\":\"n[1-3]\",\"start_at\":\"2026-12-01T08:00:00.000Z\","
                        "\"end_at\":\"2026-12-01T09:30:00.000Z\",\"reason\":\"firmware\","
                        "\"user\":null,\"account\":null}");
    /* Ahead, unlike 2h, which is that long ago. */
    clock_format_utc(clock_wall_ms() + 7200000 - 60000, start);
    assert_int_equal(
        dsctl("maint create --nodes n1 --start +2h --duration 1h --reason x --user ada -o name"),
        0);
    assert_string_equal(out, "maint/3\n");
    assert_true(strcmp(strstr(world.request, "start_at\":\"") + 11, start) > 0);
    assert_has(world.request, "\"user\":\"ada\"");
    assert_int_equal(dsctl("maint list"), 0);
    assert_has(out, "n[1-3]");
    assert_has(out, "2026-11-23 21:08:54");
    assert_has(world.request, "\"all\":false");
    assert_int_equal(dsctl("maint list --all -o json"), 0);
    assert_has(out, "\"nodes\": [\n");
    assert_has(world.request, "\"all\":true");
    assert_int_equal(dsctl("maint cancel 3 maint/4"), 0);
    assert_string_equal(out, "cancelled maint 3\ncancelled maint 4\n");
    assert_usage("maint create --start now --duration 1h --reason x", "--nodes");
    assert_usage("maint create --nodes n1 --duration 1h --reason x", "--start");
    assert_usage("maint create --nodes n1 --start now --reason x", "--duration");
    assert_usage("maint create --nodes n1 --start now --duration 1h", "--reason");
    assert_usage("maint create --nodes n[1 --start now --duration 1h --reason x", "host list");
    assert_usage("maint create --nodes n1 --start +2 --start later --duration 1h --reason x",
                 "later");
}

static void test_queues(void **state)
{
    (void)state;
    assert_int_equal(dsctl("queue set batch --nodes 16 --jobs none --weight 0.5 --accepts yes"), 0);
    assert_string_equal(out, "set queue batch\n");
    assert_has(world.request, "\"weight\":0.5,\"nodes_max\":16,\"jobs_max\":null");
    assert_has(world.request, "\"accepts\":true,\"starts\":null,\"lift\":[\"jobs_max\"]");
    assert_int_equal(dsctl("queue set batch --time-limit 2h --priority-max none -o json"), 0);
    assert_has(world.request, "\"time_limit_ms\":7200000");
    assert_has(world.request, "\"lift\":[\"priority_max\"]");
    assert_has(out, "\"schema\": \"ds/queue/v1\"");
    assert_usage("queue set batch", "nothing to change");
    assert_usage("queue set batch -o json", "nothing to change");
    assert_usage("queue set batch --weight much", "--weight");
    assert_usage("queue set batch --weight nan", "--weight");
    assert_usage("queue set batch --nodes few", "--nodes");
    assert_usage("queue set --nodes 3", "QUEUE");
    assert_int_equal(dsctl("queue list -o csv --no-header"), 0);
    assert_has(out, "batch,-5,0.5,2,3,12,16,");
    assert_int_equal(dsctl("queue show batch"), 0);
    assert_has(out, "2 running on 12 nodes, 3 waiting");
    assert_has(out, "the configuration");
    assert_has(out, "no limit");
    assert_has(out, "2h00m");
}

static void test_accounts(void **state)
{
    (void)state;
    assert_int_equal(dsctl("account set nlp --shares 3 --nodes none --accepts no"), 0);
    assert_string_equal(world.request, "{\"name\":\"nlp\",\"shares\":3,\"nodes_max\":null,"
                                       "\"accepts\":false,\"lift\":[\"nodes_max\"]}");
    assert_usage("account set nlp", "nothing to change");
    assert_int_equal(dsctl("account list"), 0);
    assert_has(out, "1.50");
    assert_int_equal(dsctl("account show nlp"), 0);
    assert_has(out, "1.50 GPU-hours");
    assert_has(out, "ada");
}

static void test_quotas(void **state)
{
    (void)state;
    assert_int_equal(dsctl("quota set --user * --account nlp --nodes 8 --expires 2026-12-01T08:00Z "
                           "--reason deadline"),
                     0);
    assert_string_equal(out, "set the quota\n");
    assert_string_equal(world.request,
                        "{\"user\":\"*\",\"account\":\"nlp\",\"class\":null,\"nodes\":8,"
                        "\"expires_at\":\"2026-12-01T08:00:00.000Z\",\"reason\":\"deadline\"}");
    assert_int_equal(dsctl("quota set --class high --nodes none"), 0);
    assert_string_equal(out, "ended the quota\n");
    assert_has(world.request, "\"class\":\"high\",\"nodes\":null,\"expires_at\":null");
    assert_usage("quota set --nodes 8", "--user");
    assert_usage("quota set --user ada", "--nodes");
    assert_usage("quota set --user ada --nodes 8 --expires someday", "--expires");
    assert_int_equal(dsctl("quota list -o name"), 0);
    assert_string_equal(out, "quota/4\n");
}

/* Completion knows the live names. */
static void test_completion(void **state)
{
    (void)state;
    dsctl("__complete queue show b");
    assert_string_equal(out, "batch\n");
    dsctl("__complete maint cancel 3");
    assert_string_equal(out, "3\tswitch firmware\n");
    dsctl("__complete account show n");
    assert_string_equal(out, "nlp\n");
    dsctl("__complete job update --account n");
    assert_string_equal(out, "nlp\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan),       cmocka_unit_test(test_update),
        cmocka_unit_test(test_resize),     cmocka_unit_test(test_suspend_resume_requeue),
        cmocka_unit_test(test_maint),      cmocka_unit_test(test_queues),
        cmocka_unit_test(test_accounts),   cmocka_unit_test(test_quotas),
        cmocka_unit_test(test_completion),
    };
    return cmocka_run_group_tests_name("ctl sched", tests, start, stop);
}
