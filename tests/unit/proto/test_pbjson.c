#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "proto/ds.pb-c.h"
#include "proto/pbjson.h"

#define TEXT(literal) ((char *)(uintptr_t)(literal))

static void assert_json(const ProtobufCMessage *message, const char *schema, const char *expected)
{
    json_t *json = pbjson_from(message, schema);
    char *text = json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(15));
    assert_string_equal(text, expected);
    free(text);
    json_decref(json);
}

/* A job as the contract shows it: schema first, keys of the schema, times in RFC 3339, null for
 * what is absent, the spec as an object. */
static void test_job(void **state)
{
    (void)state;
    Ds__Reason reason = DS__REASON__INIT;
    reason.code = TEXT("Resources");
    reason.text = TEXT("2 nodes are free");
    Ds__JobProgress progress = DS__JOB_PROGRESS__INIT;
    progress.has_step = progress.has_loss = progress.has_mtp_loss = 1;
    progress.step = 120;
    progress.loss = 2.25;
    progress.mtp_loss = NAN;
    char *nodes[] = {TEXT("gpu001"), TEXT("gpu002")};
    Ds__Job job = DS__JOB__INIT;
    job.id = 12;
    job.name = job.user = job.account = job.queue = job.stage = job.state = TEXT("x");
    job.reason = &reason;
    job.priority = -3;
    job.nodes = nodes;
    job.n_nodes = 2;
    job.submitted_at = 1700000000123;
    job.progress = &progress;
    job.spec = TEXT("{\"b\": 1, \"a\": [true]}");
    assert_json(&job.base, "ds/job/v1",
                "{\"schema\":\"ds/job/"
                "v1\",\"id\":12,\"name\":\"x\",\"user\":\"x\",\"account\":\"x\",\"queue\":\"x\","
                "\"stage\":\"x\","
                "\"state\":\"x\",\"reason\":{\"code\":\"Resources\",\"text\":\"2 nodes are "
                "free\",\"scheduled_at\":null,\"expected_start_at\":null},\"priority\":-3,\"nodes_"
                "requested\":0,"
                "\"gpus_per_node\":0,\"nodes\":[\"gpu001\",\"gpu002\"],\"submitted_at\":\"2023-11-"
                "14T22:13:20.123Z\",\"started_at\":null,"
                "\"ended_at\":null,\"attempt\":0,\"epoch\":0,\"restarts\":0,\"exit\":null,"
                "\"progress\":{\"step\":120,\"steps\":null,"
                "\"tokens\":null,\"loss\":2.25,\"mtp_loss\":null,\"tokens_per_s\":null,\"grad_"
                "norm\":null,\"valid_loss\":null},"
                "\"last_checkpoint\":null,\"usage\":null,\"attempts\":[],\"checkpoints\":[],"
                "\"events\":[],\"spec\":{\"b\":1,\"a\":[true]},"
                "\"workdir\":null,\"dependency\":null,\"array\":null,\"array_index\":null,\"array_"
                "size\":null,\"array_limit\":null,\"nodes_min\":null,\"nodes_max\":null,\"time_"
                "limit_ms\":null,\"not_before_at\":null,\"deadline_at\":null,\"preemptible\":null,"
                "\"min_runtime_ms\":null,\"preempted\":null,\"expected_start_at\":null,"
                "\"scheduled_at\":null}");
}

/* Badput is an object of categories; money may be negative; lists stand under items. */
static void test_cost(void **state)
{
    (void)state;
    Ds__BadputEntry a = DS__BADPUT_ENTRY__INIT;
    Ds__BadputEntry b = DS__BADPUT_ENTRY__INIT;
    a.category = TEXT("recovery");
    a.gpu_ms = 5;
    b.category = TEXT("held");
    b.gpu_ms = 7;
    Ds__BadputEntry *badput[] = {&a, &b};
    Ds__CostItem item = DS__COST_ITEM__INIT;
    item.key = TEXT("12");
    item.gpu_ms = 9007199254740993;
    item.badput = badput;
    item.n_badput = 2;
    item.cost_micro_usd = -1;
    Ds__CostItem empty = DS__COST_ITEM__INIT;
    empty.key = TEXT("");
    Ds__CostItem *items[] = {&item};
    Ds__Capacity capacity = DS__CAPACITY__INIT;
    Ds__Cost cost = DS__COST__INIT;
    cost.items = items;
    cost.n_items = 1;
    cost.capacity = &capacity;
    cost.total = &empty;
    assert_json(&cost.base, NULL,
                "{\"items\":[{\"key\":\"12\",\"gpu_ms\":9007199254740993,\"productive_gpu_ms\":0,"
                "\"badput\":{\"recovery\":5,\"held\":7},"
                "\"cost_micro_usd\":-1}],\"capacity\":{\"allocated\":0,\"down\":0,\"planned_down\":"
                "0,\"idle\":0,\"reported\":0},"
                "\"total\":{\"key\":\"\",\"gpu_ms\":0,\"productive_gpu_ms\":0,\"badput\":{},\"cost_"
                "micro_usd\":0}}");
}

/* Times of other names, bytes as base64, booleans, numbers past 63 bits as text, a spec that is no
 * JSON as text. */
static void test_types(void **state)
{
    (void)state;
    Ds__Event event = DS__EVENT__INIT;
    event.at = 0;
    event.kind = event.text = TEXT("a\"\n");
    event.seq = UINT64_MAX;
    assert_json(&event.base, NULL,
                "{\"seq\":\"18446744073709551615\",\"at\":\"1970-01-01T00:00:00.000Z\",\"kind\":"
                "\"a\\\"\\n\",\"job\":null,\"epoch\":null,"
                "\"node\":null,\"text\":\"a\\\"\\n\"}");
    Ds__LogChunk chunk = DS__LOG_CHUNK__INIT;
    chunk.data = (ProtobufCBinaryData){4, (uint8_t *)TEXT("\x00\xff\x10z")};
    chunk.end = 1;
    assert_json(
        &chunk.base, NULL,
        "{\"data\":\"AP8Qeg==\",\"offset\":0,\"next_offset\":0,\"end\":true,\"final\":false}");
    Ds__StoreValue value = DS__STORE_VALUE__INIT;
    assert_json(&value.base, NULL, "{\"value\":\"\"}");
    Ds__Node node = DS__NODE__INIT;
    node.name = node.state = TEXT("UP");
    node.since = 1000;
    assert_json(&node.base, NULL,
                "{\"name\":\"UP\",\"state\":\"UP\",\"reason\":null,\"by\":null,\"since\":\"1970-01-"
                "01T00:00:01.000Z\",\"gpus\":[],"
                "\"last_seen_at\":null,\"addr\":null,\"version\":null,\"connected\":null,"
                "\"scheduled_at\":null}");
    Ds__EventListRequest request = DS__EVENT_LIST_REQUEST__INIT;
    request.has_since = 1;
    request.since = 5; /* a sequence number, not a time */
    assert_json(&request.base, NULL, "{\"since\":5,\"limit\":null,\"wait_ms\":null}");
    Ds__JobSubmit submit = DS__JOB_SUBMIT__INIT;
    submit.spec = TEXT("name: a");
    submit.spec_name = submit.spec_dir = TEXT("");
    json_t *json = pbjson_from(&submit.base, NULL);
    assert_string_equal(json_string_value(json_object_get(json, "spec")), "name: a");
    json_decref(json);
}

static bool is_wanted(const void *context, const char *field)
{
    const char *const *names = context;
    while (*names != NULL && strcmp(*names, field) != 0) {
        names++;
    }
    return *names != NULL;
}

/* Rows have the wanted fields, with the values of the whole form, and nothing absent or empty. */
static void test_rows(void **state)
{
    (void)state;
    static const char *const names[] = {"id", "reason", "nodes", "exit", "no_such", NULL};
    Ds__Reason reason = DS__REASON__INIT;
    reason.code = reason.text = TEXT("held");
    Ds__Job jobs[2] = {DS__JOB__INIT, DS__JOB__INIT};
    Ds__Job *items[2] = {&jobs[0], &jobs[1]};
    for (size_t i = 0; i < 2; i++) {
        jobs[i].id = 7 + i;
        jobs[i].name = jobs[i].user = jobs[i].account = jobs[i].queue = TEXT("x");
        jobs[i].stage = jobs[i].state = TEXT("x");
    }
    jobs[0].reason = &reason;
    Ds__JobList list = DS__JOB_LIST__INIT;
    list.items = items;
    list.n_items = 2;
    list.has_truncated = list.truncated = 1;
    json_t *rows = pbjson_rows(&list.base, is_wanted, names);
    json_t *expected = json_pack("{s:[{s:i,s:{s:s,s:s}},{s:i}],s:b}", "items", "id", 7, "reason",
                                 "code", "held", "text", "held", "id", 8, "truncated", 1);
    assert_true(json_equal(rows, expected));
    json_decref(expected);
    json_decref(rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_job), cmocka_unit_test(test_cost),
                                       cmocka_unit_test(test_types), cmocka_unit_test(test_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
