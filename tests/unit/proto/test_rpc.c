#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "proto/rpc.h"
#include "tests/unit/random.h"

#define TEXT(literal) ((char *)(uintptr_t)(literal))

static const uint16_t numbers[] = {
#define RPC(name, number, request, reply, deadline_ms) number,
#include "proto/rpc.def"
#undef RPC
};

/* Every method is found under its number, and no two share one. */
static void test_table(void **state)
{
    (void)state;
    size_t count = sizeof numbers / sizeof numbers[0];
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(rpc_find(numbers[i])->number, numbers[i]);
        for (size_t j = 0; j < i; j++) {
            assert_int_not_equal(numbers[i], numbers[j]);
        }
    }
    assert_null(rpc_find(0));
    assert_null(rpc_find(65535));
    assert_string_equal(rpc_find(RPC_JOB_SUBMIT)->name, "JOB_SUBMIT");
}

static struct frame decode(const struct buf *out)
{
    struct frame f;
    size_t used;
    assert_int_equal(frame_decode(out->data, out->len, FRAME_PAYLOAD_MAX, &f, &used, NULL), 0);
    assert_int_equal(used, out->len);
    return f;
}

static Ds__Event sample_event(void)
{
    Ds__Event e = DS__EVENT__INIT;
    e.seq = 12;
    e.at = 1700000000000;
    e.kind = TEXT("job.start");
    e.node = TEXT("gpu001");
    e.text = TEXT("Größe \xf0\x9f\x98\x80");
    return e;
}

/* A message comes back with its values; a request carries its method's deadline, a reply none. */
static void test_round_trip(void **state)
{
    (void)state;
    Ds__Event e = sample_event();
    Ds__Event *items[] = {&e, &e};
    Ds__EventList list = DS__EVENT_LIST__INIT;
    list.n_items = 2;
    list.items = items;
    struct buf out = {0};
    assert_int_equal(rpc_pack(&out, RPC_EVENT_LIST, FRAME_REPLY, 99, &list.base), 0);
    struct frame f = decode(&out);
    assert_int_equal(f.request_id, 99);
    assert_int_equal(f.deadline_ms, 0);
    ProtobufCMessage *message;
    assert_int_equal(rpc_unpack(&f, &message, NULL), 0);
    const Ds__EventList *got = (const Ds__EventList *)message;
    assert_int_equal(got->n_items, 2);
    assert_string_equal(got->items[1]->text, e.text);
    assert_int_equal(got->items[1]->at, e.at);
    assert_false(got->items[1]->has_job);
    rpc_free(message);
    buf_reset(&out);
    Ds__JobId id = DS__JOB_ID__INIT;
    id.id = 5;
    assert_int_equal(rpc_pack(&out, RPC_JOB_SHOW, FRAME_REQUEST, 1, &id.base), 0);
    assert_int_equal(decode(&out).deadline_ms, 30000);
    buf_fini(&out);
}

/* A one-way frame is the request, or the reply where the request is Empty. */
static void test_oneway(void **state)
{
    (void)state;
    struct buf out = {0};
    Ds__RankStop stop = DS__RANK_STOP__INIT;
    stop.reason = TEXT("drain");
    assert_int_equal(rpc_pack(&out, RPC_RANK_STOP, FRAME_ONEWAY, 0, &stop.base), 0);
    struct frame f = decode(&out);
    ProtobufCMessage *message;
    assert_int_equal(rpc_unpack(&f, &message, NULL), 0);
    assert_ptr_equal(message->descriptor, &ds__rank_stop__descriptor);
    rpc_free(message);
    Ds__AttemptReport report = DS__ATTEMPT_REPORT__INIT;
    Ds__ShimStatus status = DS__SHIM_STATUS__INIT;
    status.boot_id = TEXT("b");
    status.report = &report;
    buf_reset(&out);
    assert_int_equal(rpc_pack(&out, RPC_SHIM_STATUS, FRAME_ONEWAY, 0, &status.base), 0);
    f = decode(&out);
    assert_int_equal(rpc_unpack(&f, &message, NULL), 0);
    assert_ptr_equal(message->descriptor, &ds__shim_status__descriptor);
    rpc_free(message);
    buf_fini(&out);
}

static int unpack_payload(uint16_t method, enum frame_kind kind, const void *payload, size_t len,
                          struct err *err)
{
    ProtobufCMessage *message;
    struct frame f = {
        .method = method, .kind = kind, .payload = payload, .payload_bytes = (uint32_t)len};
    int rc = rpc_unpack(&f, &message, err);
    assert_true((rc == 0) == (message != NULL));
    rpc_free(message);
    return rc;
}

/* Strings that are not text, messages that lack a required field, are cut short or of an unknown
 * method: refused with the reason. */
static void test_refused(void **state)
{
    (void)state;
    struct err err;
    static const uint8_t good[] = {0x0a, 2, 'o', 'k'};
    static const uint8_t nul[] = {0x0a, 2, 'o', 0};
    static const uint8_t latin[] = {0x0a, 2, 'o', 0xe9};
    static const uint8_t cut[] = {0x0a, 9, 'o', 'k'};
    static const uint8_t wrong_type[] = {0x08, 1};
    static const uint8_t group[] = {0x0b, 0x0c};
    assert_int_equal(unpack_payload(RPC_NODE_SHOW, FRAME_REQUEST, good, sizeof good, &err), 0);
    assert_int_equal(unpack_payload(RPC_NODE_SHOW, FRAME_REQUEST, nul, sizeof nul, &err),
                     ERR_PROTOCOL);
    assert_string_equal(err.text, "field name of a NodeName message is not UTF-8 text");
    assert_int_equal(unpack_payload(RPC_NODE_SHOW, FRAME_REQUEST, latin, sizeof latin, &err),
                     ERR_PROTOCOL);
    assert_int_equal(unpack_payload(RPC_NODE_SHOW, FRAME_REQUEST, cut, sizeof cut, &err),
                     ERR_PROTOCOL);
    assert_int_equal(unpack_payload(RPC_NODE_SHOW, FRAME_REQUEST, wrong_type, 2, &err),
                     ERR_PROTOCOL);
    assert_int_equal(unpack_payload(RPC_NODE_SHOW, FRAME_REQUEST, group, 2, &err), ERR_PROTOCOL);
    assert_int_equal(unpack_payload(RPC_NODE_SHOW, FRAME_REQUEST, good, 0, &err), ERR_PROTOCOL);
    assert_int_equal(unpack_payload(9999, FRAME_REQUEST, good, sizeof good, &err), ERR_PROTOCOL);
    assert_string_equal(err.text, "unknown method 9999 (a newer peer?)");
    /* nested: EventList.items[0].kind */
    static const uint8_t nested[] = {0x0a, 10, 8, 1, 16, 1, 0x1a, 1, 0xff, 0x3a, 1, 'x'};
    assert_int_equal(unpack_payload(RPC_EVENT_LIST, FRAME_REPLY, nested, sizeof nested, &err),
                     ERR_PROTOCOL);
    assert_string_equal(err.text, "field kind of a Event message is not UTF-8 text");
}

/* What a program sends never makes its peer close the line: broken text leaves with '?' in its
 * place. */
static void test_clean(void **state)
{
    (void)state;
    struct buf out = {0};
    Ds__NodeName name = DS__NODE_NAME__INIT;
    name.name = TEXT("a\xff\xc3(\xe2\x82");
    assert_int_equal(rpc_pack(&out, RPC_NODE_SHOW, FRAME_REQUEST, 1, &name.base), 0);
    struct frame f = decode(&out);
    ProtobufCMessage *message;
    assert_int_equal(rpc_unpack(&f, &message, NULL), 0);
    assert_string_equal(((const Ds__NodeName *)message)->name, "a?"
                                                               "?("
                                                               "?"
                                                               "?");
    rpc_free(message);
    buf_fini(&out);
}

/* A frame of the largest size that would need a hundred times its size in memory is refused; one of
 * full-sized items is not. */
static void test_memory(void **state)
{
    (void)state;
    struct err err;
    uint8_t *payload = mem_alloc(FRAME_PAYLOAD_MAX);
    for (size_t i = 0; i + 2 <= FRAME_PAYLOAD_MAX; i += 2) {
        payload[i] = 0x0a; /* NodeNames.name, empty */
    }
    assert_int_equal(
        unpack_payload(RPC_NODE_RESUME, FRAME_REQUEST, payload, FRAME_PAYLOAD_MAX, &err),
        ERR_PROTOCOL);
    assert_string_equal(err.text, "NodeNames message needs more than 33554432 bytes of memory");
    size_t len = 0;
    for (int i = 0; i < 65536; i++, len += 11) { /* all nodes of the largest cluster */
        memcpy(payload + len, "\x0a\x09gpu000001", 11);
    }
    assert_int_equal(unpack_payload(RPC_NODE_RESUME, FRAME_REQUEST, payload, len, &err), 0);
    free(payload);
}

/* A reply that does not fit becomes an error for its requester; a request is refused and nothing is
 * sent. */
static void test_too_large(void **state)
{
    (void)state;
    struct buf out = {0};
    Ds__LogChunk chunk = DS__LOG_CHUNK__INIT;
    chunk.data.len = FRAME_PAYLOAD_MAX;
    chunk.data.data = mem_alloc(chunk.data.len);
    assert_int_equal(rpc_pack(&out, RPC_JOB_LOGS, FRAME_REPLY, 8, &chunk.base), ERR_TOO_LARGE);
    struct frame f = decode(&out);
    struct err err;
    assert_int_equal(f.kind, FRAME_ERROR);
    assert_int_equal(f.request_id, 8);
    assert_int_equal(rpc_unpack_error(&f, &err), ERR_TOO_LARGE);
    buf_reset(&out);
    Ds__StoreSet set = DS__STORE_SET__INIT;
    set.key = TEXT("k");
    set.value = chunk.data;
    assert_int_equal(rpc_pack(&out, RPC_STORE_SET, FRAME_REQUEST, 8, &set.base), ERR_TOO_LARGE);
    assert_int_equal(out.len, 0);
    free(chunk.data.data);
    buf_fini(&out);
}

/* Errors keep code and text; a success code or one from the future is a failure all the same; long
 * text is cut. */
static void test_errors(void **state)
{
    (void)state;
    struct buf out = {0};
    struct err err;
    rpc_pack_error(&out, RPC_JOB_SHOW, 5, ERR_NOT_FOUND, "job 5: not found");
    struct frame f = decode(&out);
    assert_int_equal(rpc_unpack_error(&f, &err), ERR_NOT_FOUND);
    assert_string_equal(err.text, "job 5: not found");
    static const int odd[] = {0, 7, -1000};
    for (size_t i = 0; i < 3; i++) {
        buf_reset(&out);
        rpc_pack_error(&out, 9999, 5, odd[i], "x");
        f = decode(&out);
        assert_int_equal(rpc_unpack_error(&f, &err), ERR_FAILED);
    }
    char *text = mem_alloc(100001);
    memset(text, 'x', 100000);
    buf_reset(&out);
    rpc_pack_error(&out, RPC_JOB_SHOW, 5, ERR_FAILED, text);
    assert_true(out.len < 5000);
    free(text);
    f = decode(&out);
    f.payload_bytes = 1;
    assert_int_equal(rpc_unpack_error(&f, &err), ERR_PROTOCOL);
    buf_fini(&out);
}

/* Payloads with random damage unpack or are refused, for every method; nothing leaks (under the
 * sanitizers). */
static void test_damage(void **state)
{
    (void)state;
    random_start("rpc damage");
    struct buf out = {0};
    Ds__Event e = sample_event();
    Ds__Event *items[] = {&e, &e, &e};
    Ds__EventList list = DS__EVENT_LIST__INIT;
    list.n_items = 3;
    list.items = items;
    rpc_pack(&out, RPC_EVENT_LIST, FRAME_REPLY, 99, &list.base);
    uint8_t *payload = out.data + FRAME_HEADER_BYTES;
    size_t len = out.len - FRAME_HEADER_BYTES;
    int accepted = 0;
    for (int i = 0; i < 50000; i++) {
        uint8_t copy[256];
        assert_true(len <= sizeof copy);
        memcpy(copy, payload, len);
        for (uint64_t k = 1 + random_below(3); k > 0; k--) {
            copy[random_below(len)] = (uint8_t)random_next();
        }
        uint16_t method = i % 2 ? (uint16_t)RPC_EVENT_LIST
                                : numbers[random_below(sizeof numbers / sizeof numbers[0])];
        accepted += unpack_payload(method, i % 3 ? FRAME_REPLY : FRAME_REQUEST, copy,
                                   random_below(len + 1), NULL) == 0;
    }
    assert_in_range(accepted, 1, 49999);
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),     cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_oneway),    cmocka_unit_test(test_refused),
        cmocka_unit_test(test_clean),     cmocka_unit_test(test_memory),
        cmocka_unit_test(test_too_large), cmocka_unit_test(test_errors),
        cmocka_unit_test(test_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
