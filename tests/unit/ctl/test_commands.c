/* Whole commands against a coordinator that answers from this file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "ctl/ctl.h"
#include "ctl/jobs.h"
#include "lib/file.h"
#include "lib/mem.h"
#include "proto/pick.h"
#include "tests/unit/ctl/fake_cluster.h"

/* ---- running dsctl */

static struct fake_server *server;
static char folder[64];
static char *out;
static char *errors;

static int start(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/dsctl-files-XXXXXX");
    server = fake_server_start(fake_cluster_answer, NULL);
    setenv("DS_SERVER", fake_server_address(server), 1);
    setenv("TZ", "UTC", 1);
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static int stop(void **state)
{
    (void)state;
    fake_server_stop(server);
    free(out);
    free(errors);
    return file_remove_tree(folder, NULL);
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

static json_t *dsctl_json(const char *line)
{
    int status = dsctl(line);
    assert_string_equal(errors, "");
    assert_int_equal(status, 0);
    json_t *object = json_loads(out, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(object);
    return object;
}

/* Blank-separated keys are all there; a null value will do. */
static void assert_keys(const json_t *object, const char *keys)
{
    char copy[512];
    snprintf(copy, sizeof copy, "%s", keys);
    assert_true(json_is_object(object));
    for (char *key = strtok(copy, " "); key != NULL; key = strtok(NULL, " ")) {
        if (json_object_get(object, key) == NULL) {
            fail_msg("the key %s is missing", key);
        }
    }
}

static const json_t *first_of(const json_t *object, const char *key)
{
    return json_array_get(json_object_get(object, key), 0);
}

/* ---- tests */

/* The keys that the contract promises are in the JSON, under the schema that it names. */
static void test_contract_keys(void **state)
{
    (void)state;
    json_t *job = dsctl_json("job show 12 -o json");
    assert_string_equal(pick_text(job, "schema"), "ds/job/v1");
    assert_keys(job, "id name user account queue stage state reason priority nodes_requested "
                     "gpus_per_node nodes "
                     "submitted_at started_at ended_at attempt epoch restarts exit progress "
                     "last_checkpoint usage");
    assert_keys(pick(job, "reason"), "code text");
    assert_keys(pick(job, "exit"), "code signal class");
    assert_keys(pick(job, "progress"), "step steps tokens loss mtp_loss tokens_per_s grad_norm");
    assert_keys(pick(job, "last_checkpoint"), "id step committed_at");
    assert_keys(pick(job, "usage"), "gpu_ms productive_gpu_ms cost_micro_usd");
    assert_string_equal(pick_text(job, "started_at"), "2026-11-23T21:08:54.123Z");
    assert_keys(first_of(job, "attempts"),
                "attempt epoch nodes started_at ended_at cause first_step last_step "
                "lost_steps detect_ms restart_ms");
    assert_keys(first_of(job, "checkpoints"),
                "id job step epoch state bytes shards sha256 committed_at pinned path");
    json_decref(job);

    json_t *nodes = dsctl_json("nodes -o json");
    assert_string_equal(pick_text(nodes, "schema"), "ds/node-list/v1");
    assert_keys(first_of(nodes, "items"),
                "name state reason by since gpus last_seen_at addr version");
    assert_keys(first_of(first_of(nodes, "items"), "gpus"), "index uuid model health job");
    json_decref(nodes);

    json_t *cost = dsctl_json("cost report -o json");
    assert_keys(cost, "schema items capacity");
    assert_keys(pick(cost, "capacity"), "allocated down planned_down idle reported");
    assert_keys(first_of(cost, "items"), "key gpu_ms productive_gpu_ms badput cost_micro_usd");
    assert_int_equal(pick_int(first_of(cost, "items"), "badput.init"), 720000);
    json_decref(cost);
}

/* A list is read page by page, as far as --limit goes. */
static void test_list_pages(void **state)
{
    (void)state;
    json_t *list = dsctl_json("jobs --limit 2300 -o json");
    assert_string_equal(pick_text(list, "schema"), "ds/job-list/v1");
    assert_int_equal(json_array_size(json_object_get(list, "items")), 2300);
    json_decref(list);
    list = dsctl_json("jobs --limit 0 -o json");
    assert_int_equal(json_array_size(json_object_get(list, "items")), 2500);
    for (size_t i = 0; i < 2500; i++) {
        assert_int_equal(pick_int(json_array_get(json_object_get(list, "items"), i), "id"),
                         2500 - i);
    }
    json_decref(list);
    assert_int_equal(dsctl("jobs -o name --state pending"), 0);
    assert_string_equal(world.asked_state, "PENDING");
    assert_has(out, "job/2500\njob/2499\n");
    assert_has(errors, "only the newest 1000 jobs are shown");
    assert_int_equal(dsctl("jobs --sort id --limit 2 -o csv --no-header"), 0);
    assert_has(out, "1501,x,x,"); /* of the newest thousand */
}

/* A job with every kind of field that columns look at. */
static Ds__JobList *one_job(void)
{
    Ds__JobProgress progress = DS__JOB_PROGRESS__INIT;
    progress.has_step = progress.has_steps = progress.has_tokens_per_s = progress.has_loss = 1;
    progress.step = 5;
    progress.steps = 9;
    progress.tokens_per_s = 1234;
    progress.loss = 2.5;
    Ds__JobCheckpoint ckpt = {.base = PROTOBUF_C_MESSAGE_INIT(&ds__job_checkpoint__descriptor)};
    ckpt.step = 4;
    Ds__JobUsage usage = {.base = PROTOBUF_C_MESSAGE_INIT(&ds__job_usage__descriptor)};
    usage.gpu_ms = 7200000;
    usage.cost_micro_usd = 4000000;
    Ds__Reason reason = DS__REASON__INIT;
    reason.code = reason.text = (char *)(uintptr_t) "because";
    char word[] = "x";
    char *nodes[] = {word};
    Ds__Job job = DS__JOB__INIT;
    job.id = 3;
    job.name = job.user = job.account = job.queue = job.stage = job.state = word;
    job.dependency = word;
    job.nodes = nodes;
    job.n_nodes = 1;
    job.nodes_requested = 2;
    job.gpus_per_node = 8;
    job.attempt = 6;
    job.submitted_at = 1000;
    job.has_started_at = job.has_ended_at = job.has_expected_start_at = 1;
    job.started_at = job.expected_start_at = 2000;
    job.ended_at = 9000;
    job.has_array = job.has_array_index = 1;
    job.array = 2;
    job.array_index = 1;
    job.progress = &progress;
    job.last_checkpoint = &ckpt;
    job.usage = &usage;
    job.reason = &reason;
    Ds__Job *items[] = {&job};
    Ds__JobList list = DS__JOB_LIST__INIT;
    list.items = items;
    list.n_items = 1;
    size_t size = ds__job_list__get_packed_size(&list);
    uint8_t *bytes = mem_alloc(size);
    ds__job_list__pack(&list, bytes);
    Ds__JobList *copy = ds__job_list__unpack(NULL, size, bytes);
    free(bytes);
    return copy;
}

/* What is made of a row for a table is all that its columns read, sorted or not. */
static void test_list_reads(void **state)
{
    (void)state;
    struct output o = {.terminal = {.columns = 80}};
    static const enum output_format formats[] = {OUTPUT_TABLE, OUTPUT_WIDE, OUTPUT_CSV,
                                                 OUTPUT_NAME};
    for (size_t i = 0; i < 2 * sizeof formats / sizeof formats[0]; i++) {
        struct buf rows = {0};
        struct buf whole = {0};
        o.format = formats[i / 2];
        o.sort = i % 2 == 0 ? NULL : "COST";
        json_t *object = output_rows(&o, one_job(), "ds/job-list/v1", &job_listing);
        assert_true(o.sort == NULL ||
                    pick(first_of(object, "items"), "usage.cost_micro_usd") != NULL);
        assert_int_equal(output_list(&o, &rows, object, &job_listing, NULL), 0);
        object = output_json(one_job(), "ds/job-list/v1");
        assert_int_equal(output_list(&o, &whole, object, &job_listing, NULL), 0);
        assert_string_equal(buf_cstr(&rows), buf_cstr(&whole));
        buf_fini(&rows);
        buf_fini(&whole);
    }
}

/* The page of a job shows what happened to it, and what it cost. */
static void test_job_page(void **state)
{
    (void)state;
    assert_int_equal(dsctl("job show job/12"), 0);
    assert_string_equal(errors, "");
    const char *const parts[] = {
        "job 12 (tiny-moe): FAILED\n",
        "reason        rank 3 ended with status 75\n",
        "user          root, account research, queue default, stage pretrain, priority 100\n",
        "asked for     2 nodes with 2 GPUs each\n",
        "nodes         n[1,2]\n",
        "started       2026-11-23 21:08:54, ",
        "exit          signal 9 (SIGKILL), transient\n",
        "progress      step 120 of 200 (60.0%), 492K tokens, 15.3K tokens/s\n",
        "checkpoint    7, of step 100, ",
        "cost          $4.00 for 2.00 GPU-hours, 90.0% of them productive\n",
        "  step 100  ",
        "rank 3 was killed by signal 9",
        "1.0 MiB",
        "submitted by root",
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        assert_has(out, parts[i]);
    }
}

/* The server's refusal is one line, and its code the exit status. */
static void test_refusal(void **state)
{
    (void)state;
    assert_int_equal(dsctl("job show 13"), 3);
    assert_string_equal(out, "");
    assert_string_equal(errors, "dsctl: there is no job 13 (dsctl job list --all)\n");
    assert_int_equal(dsctl("job why 12"), 4);
    assert_string_equal(errors, "dsctl: not today (ask tomorrow)\n");
    assert_int_equal(dsctl("job show twelve"), 2);
}

/* Nobody listens: status 6, and what to do. */
static void test_unreachable(void **state)
{
    (void)state;
    assert_int_equal(dsctl("jobs --server /nowhere/dsd.sock"), 6);
    assert_string_equal(out, "");
    assert_string_equal(
        errors,
        "dsctl: cannot reach the coordinator at /nowhere/dsd.sock: no such socket (start dsd, or "
        "set --server/DS_SERVER)\n");
}

static void write_job(const char *yaml)
{
    char path[128];
    snprintf(path, sizeof path, "%s/job.yaml", folder);
    assert_int_equal(file_write_durable(path, yaml, strlen(yaml), 0644, NULL), 0);
}

static int submit(const char *options)
{
    char line[256];
    snprintf(line, sizeof line, "submit %s/job.yaml %s", folder, options);
    return dsctl(line);
}

/* A submit whose answer is lost is sent again with the same key. */
static void test_submit_again(void **state)
{
    (void)state;
    write_job("name: one\ncommand: [\"true\"]\n");
    atomic_store(&world.submits, 0);
    atomic_store(&world.drops, 1);
    assert_int_equal(submit(""), 0);
    assert_string_equal(out, "submitted job 12 (one)\n");
    assert_has(errors, "trying again");
    assert_int_equal(atomic_load(&world.submits), 2);
    assert_int_equal(strlen(world.keys[0]), 32);
    assert_string_equal(world.keys[0], world.keys[1]);
    assert_int_equal(submit("--parsable"), 0);
    assert_string_equal(out, "12\n");
    assert_string_not_equal(world.keys[0], world.keys[1]);
    assert_int_equal(submit("--key mine -o name"), 0);
    assert_string_equal(out, "job/12\n");
    assert_string_equal(world.keys[1], "mine");
}

/* Without any answer it gives up after --timeout, and says how to find out. */
static void test_submit_gives_up(void **state)
{
    (void)state;
    write_job("name: one\ncommand: [\"true\"]\n");
    atomic_store(&world.drops, 1000);
    assert_int_equal(submit("--timeout 500ms --key k7"), 6);
    atomic_store(&world.drops, 0);
    assert_string_equal(out, "");
    assert_has(errors, "--key k7");
}

/* A mistake in the file is shown with its line, and nothing is sent. */
static void test_submit_checks_first(void **state)
{
    (void)state;
    write_job("name: one\ncommand: [\"true\"]\ncolour: red\n");
    atomic_store(&world.submits, 0);
    assert_int_equal(submit("--server /nowhere/dsd.sock"), 1);
    assert_has(errors, "job.yaml:3:");
    assert_int_equal(atomic_load(&world.submits), 0);
    assert_int_equal(dsctl("submit /nowhere/job.yaml"), 1);
    assert_has(errors, "/nowhere/job.yaml");
}

/* Waiting goes on over a lost connection; the exit status is the job's. */
static void test_wait(void **state)
{
    (void)state;
    strcpy(world.job_state, "FAILED");
    atomic_store(&world.waits, 0);
    assert_int_equal(dsctl("job wait 12"), 1);
    assert_int_equal(atomic_load(&world.waits), 3);
    assert_has(errors, "the coordinator is back");
    assert_has(errors, "dsctl: job 12 (tiny-moe) failed: rank 3 ended with status 75");
    assert_string_equal(out, "");
    strcpy(world.job_state, "COMPLETED");
    atomic_store(&world.waits, 2);
    assert_int_equal(dsctl("job wait 12"), 0);
    assert_string_equal(out, "completed job 12 (tiny-moe) after 3m10s\n");
    strcpy(world.job_state, "RUNNING");
    atomic_store(&world.waits, 2);
    assert_int_equal(dsctl("job wait 12 --timeout 200ms"), 7);
    assert_has(errors, "has not ended");
}

/* Some targets refused: a line for each, 8; all refused: their own code. */
static void test_partly_done(void **state)
{
    (void)state;
    assert_int_equal(dsctl("node drain n[1-2],x3 --reason fan"), 8);
    assert_string_equal(out, "draining node n1\ndraining node n2\n");
    assert_string_equal(errors,
                        "dsctl: cannot drain node x3: there is no such node (dsctl node list)\n");
    assert_int_equal(dsctl("node drain x[1-2] --reason fan"), 3);
    assert_int_equal(dsctl("node drain n1 --reason fan -o json"), 0);
    assert_has(out, "\"schema\": \"ds/outcome-list/v1\"");
    assert_int_equal(dsctl("node drain n1"), 2);
    assert_has(errors, "--reason");
}

/* Lines come whole, each stream after the other; ranks are told apart; a tail is a tail. */
static void test_logs(void **state)
{
    (void)state;
    assert_int_equal(dsctl("logs 12"), 0);
    assert_string_equal(out, "first\nsecond\nthird\noops\n");
    assert_int_equal(dsctl("logs 12 --stderr"), 0);
    assert_string_equal(out, "oops\n");
    assert_int_equal(dsctl("logs 12 --stdout --tail 1"), 0);
    assert_string_equal(out, "third\n");
    assert_int_equal(dsctl("logs 12 --rank 2,0"), 0);
    assert_string_equal(out, "[0]  first\n[0]  second\n[0]  third\n[0!] oops\n"
                             "[2]  first\n[2]  second\n[2]  third\n[2!] oops\n");
    assert_int_equal(dsctl("logs 12 --rank 4"), 3);
    assert_has(errors, "ranks 0 to 3");
    assert_int_equal(dsctl("logs 12 --attempt 9"), 3);
    assert_int_equal(dsctl("logs 12 --stdout -o json"), 0);
    assert_has(
        out, "{\"schema\":\"ds/log/"
             "v1\",\"job\":12,\"epoch\":2,\"rank\":0,\"stream\":\"stdout\",\"line\":\"first\"}\n");
    /* The job has ended: following it ends, too. */
    assert_int_equal(dsctl("logs 12 -f"), 0);
    assert_has(out, "third\n");
}

/* The sequence numbers of what -o name printed: "1 2 3 ". */
static const char *sequence(const char *text)
{
    static char numbers[1024];
    size_t used = 0;
    unsigned number = 0;
    numbers[0] = 0;
    for (const char *at = text;
         (at = strstr(at, "event/")) != NULL && sscanf(at, "event/%u", &number) == 1; at++) {
        used += (size_t)snprintf(numbers + used, sizeof numbers - used, "%u ", number);
    }
    return numbers;
}

/* A tail shows each event once, over a connection that is lost and made again. */
static void test_event_tail(void **state)
{
    (void)state;
    atomic_store(&world.tails, 0);
    assert_int_equal(dsctl("event tail --since 20 -o name"), 4);
    assert_has(errors, "the coordinator is back");
    assert_string_equal(sequence(out), "21 22 23 24 25 26 ");
    atomic_store(&world.tails, 0);
    assert_int_equal(dsctl("event tail --since 20 --job 12 -o name"), 4);
    assert_string_equal(sequence(out), "22 24 26 ");
    atomic_store(&world.tails, 4);
    assert_int_equal(dsctl("event tail --limit 1"), 4);
    assert_has(out,
               "    40  2026-11-23 21:08:54  job.submitted       job 12   -       it happened\n");
}

/* A list holds the newest, or all that follow, however small the pages are. */
static void test_event_list(void **state)
{
    (void)state;
    assert_int_equal(dsctl("event list --limit 5 -o name"), 0);
    assert_string_equal(sequence(out), "36 37 38 39 40 ");
    assert_int_equal(dsctl("event list --since 33 -o name"), 0);
    assert_string_equal(sequence(out), "34 35 36 37 38 39 40 ");
    assert_int_equal(dsctl("event list --since 33 --limit 3 -o name"), 0);
    assert_string_equal(sequence(out), "34 35 36 ");
    assert_int_equal(dsctl("event list --since 40 -o name"), 0);
    assert_string_equal(out, "");
}

/* The table of costs ends with the total and the identity that anyone can add up. */
static void test_cost(void **state)
{
    (void)state;
    assert_int_equal(dsctl("cost report --by user"), 0);
    assert_has(out, "USER   GPU-HOURS  PRODUCTIVE  GOODPUT  INIT");
    assert_has(out, "\ntotal       2.00        1.80    90.0%  0.20");
    assert_has(
        out, "\nallocated 2.00 + down 0.00 + planned_down 0.00 + idle 1.00 = reported 3.00: ok\n");
    world.verify_ok = 1;
    assert_int_equal(dsctl("cost verify"), 0);
    assert_has(out, "ledger: 42 rows, hash chain abcd: ok\nGPU-hours: allocated");
    world.verify_ok = 0;
    assert_int_equal(dsctl("cost verify -o json"), 1);
    assert_has(out, "\"ok\": false");
    assert_has(errors, "row 3: the hash does not follow");
    assert_int_equal(dsctl("cost report --from tomorrow"), 2);
    assert_int_equal(dsctl("cost report --from 1d --to 2d"), 2);
}

/* A node's row counts what is used and tells what is ill. */
static void test_nodes(void **state)
{
    (void)state;
    assert_int_equal(dsctl("nodes --no-header"), 0);
    assert_has(out, "n1  UP  1/2  1 ill: Xid 79  12  ");
    assert_int_equal(dsctl("nodes -o name"), 0);
    assert_string_equal(out, "node/n1\n");
}

/* Candidates come from the command tree and from the coordinator, with what is typed as prefix. */
static void test_completion(void **state)
{
    (void)state;
    const struct {
        const char *line;
        const char *has;
    } cases[] = {
        {"__complete j", "job\njobs\t"},
        {"__complete node dr", "drain\t"},
        {"__complete jobs --st", "--state\t"},
        {"__complete jobs --state COMP", "COMPLETED\n"},
        {"__complete jobs --state=COMP", "--state=COMPLETED\n"},
        {"__complete -o js", "json\n"},
        {"__complete submit x", ":file\n"},
        {"__complete node show n", "n1\tUP\n"},
        {"__complete node drain n1 n", "n1\tUP\n"},
        {"__complete job show 2500", "2500\tx PENDING\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(dsctl(cases[i].line), 0);
        assert_has(out, cases[i].has);
        assert_string_equal(errors, "");
    }
    assert_int_equal(dsctl("__complete job show 12 2"), 0);
    assert_string_equal(out, "");
    assert_int_equal(dsctl("__complete node show --server /nowhere/sock n"), 0);
    assert_string_equal(out, "");
}

/* Only what reads can be watched. */
static void test_watch_refused(void **state)
{
    (void)state;
    assert_int_equal(dsctl("job cancel 12 --watch"), 2);
    assert_has(errors, "cannot be watched");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contract_keys),
        cmocka_unit_test(test_list_pages),
        cmocka_unit_test(test_list_reads),
        cmocka_unit_test(test_job_page),
        cmocka_unit_test(test_refusal),
        cmocka_unit_test(test_unreachable),
        cmocka_unit_test(test_submit_again),
        cmocka_unit_test(test_submit_gives_up),
        cmocka_unit_test(test_submit_checks_first),
        cmocka_unit_test(test_wait),
        cmocka_unit_test(test_partly_done),
        cmocka_unit_test(test_logs),
        cmocka_unit_test(test_event_tail),
        cmocka_unit_test(test_event_list),
        cmocka_unit_test(test_cost),
        cmocka_unit_test(test_nodes),
        cmocka_unit_test(test_completion),
        cmocka_unit_test(test_watch_refused),
    };
    return cmocka_run_group_tests_name("ctl commands", tests, start, stop);
}
