#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "proto/frame.h"
#include "tests/unit/random.h"

static const uint8_t payload[] = {0x0a, 0x03, 'a', 'b', 'c', 0x10, 0x2a};

static struct frame sample(void)
{
    return (struct frame){.method = 103,
                          .kind = FRAME_REQUEST,
                          .request_id = 0x1122334455667788,
                          .deadline_ms = 30000,
                          .payload = payload,
                          .payload_bytes = sizeof payload};
}

/* The header is laid out as frame.h says, byte by byte. */
static void test_layout(void **state)
{
    (void)state;
    struct buf out = {0};
    struct frame f = sample();
    frame_encode(&f, &out);
    static const uint8_t expected[28] = {'D',  'S',  'F',  '1',  7,    0,    0,    0,    103,  0,
                                         1,    0,    0,    0,    0,    0,    0x88, 0x77, 0x66, 0x55,
                                         0x44, 0x33, 0x22, 0x11, 0x30, 0x75, 0,    0};
    assert_int_equal(out.len, FRAME_HEADER_BYTES + sizeof payload);
    assert_memory_equal(out.data, expected, sizeof expected);
    static const uint8_t checksum[4] = {0xd4, 0x92, 0x22, 0x30};
    assert_memory_equal(out.data + 28, checksum, 4);
    buf_fini(&out);
}

/* What was encoded comes back, also from the middle of a stream, and says where the next frame
 * starts. */
static void test_round_trip(void **state)
{
    (void)state;
    random_start("frame round trip");
    struct buf stream = {0};
    enum { COUNT = 200 };
    uint8_t bytes[300];
    for (int i = 0; i < COUNT; i++) {
        size_t len = random_below(sizeof bytes);
        memset(bytes, i, sizeof bytes);
        struct frame f = {.method = (uint16_t)i,
                          .kind = (enum frame_kind)(1 + i % 4),
                          .request_id = (uint64_t)i << 40,
                          .deadline_ms = (uint32_t)i * 1000,
                          .payload = bytes,
                          .payload_bytes = (uint32_t)len};
        frame_encode(&f, &stream);
    }
    size_t at = 0;
    for (int i = 0; i < COUNT; i++) {
        struct frame f;
        size_t used;
        assert_int_equal(
            frame_decode(stream.data + at, stream.len - at, FRAME_PAYLOAD_MAX, &f, &used, NULL), 0);
        assert_int_equal(f.method, i);
        assert_int_equal(f.kind, 1 + i % 4);
        assert_int_equal(f.request_id, (uint64_t)i << 40);
        assert_int_equal(f.deadline_ms, i * 1000);
        assert_int_equal(used, FRAME_HEADER_BYTES + f.payload_bytes);
        for (uint32_t k = 0; k < f.payload_bytes; k++) {
            assert_int_equal(f.payload[k], (uint8_t)i);
        }
        at += used;
    }
    assert_int_equal(at, stream.len);
    buf_fini(&stream);
}

/* Cut anywhere, a frame asks for more bytes, and never reads past what is there (the copy is as
 * large as the cut). */
static void test_truncated(void **state)
{
    (void)state;
    struct buf out = {0};
    struct frame f = sample();
    frame_encode(&f, &out);
    for (size_t len = 0; len < out.len; len++) {
        uint8_t *cut = malloc(len > 0 ? len : 1);
        memcpy(cut, out.data, len);
        struct frame got;
        size_t used;
        assert_int_equal(frame_decode(cut, len, FRAME_PAYLOAD_MAX, &got, &used, NULL), ERR_AGAIN);
        free(cut);
    }
    buf_fini(&out);
}

/* Every flip of one bit is refused: no bit of a frame is unchecked. A flip in the length may ask
 * for more bytes, which then do not check either. */
static void test_bit_flips(void **state)
{
    (void)state;
    struct buf out = {0};
    struct frame f = sample();
    frame_encode(&f, &out);
    size_t len = out.len;
    uint8_t *longer = calloc(1, FRAME_HEADER_BYTES + FRAME_PAYLOAD_MAX);
    memcpy(longer, out.data, len);
    for (size_t bit = 0; bit < len * 8; bit++) {
        struct frame got;
        size_t used;
        longer[bit / 8] ^= (uint8_t)(1u << bit % 8);
        int rc = frame_decode(longer, FRAME_HEADER_BYTES + FRAME_PAYLOAD_MAX, FRAME_PAYLOAD_MAX,
                              &got, &used, NULL);
        assert_true(rc == ERR_PROTOCOL || rc == ERR_CORRUPT || rc == ERR_TOO_LARGE);
        longer[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    free(longer);
    buf_fini(&out);
}

/* The limit is known from the header alone, before any payload arrives, and a payload of just the
 * limit passes. */
static void test_oversized(void **state)
{
    (void)state;
    struct buf out = {0};
    struct frame f = sample();
    struct frame got;
    size_t used;
    struct err err;
    uint8_t *large = calloc(1, FRAME_PAYLOAD_MAX_HELLO + 1);
    f.payload = large;
    f.payload_bytes = FRAME_PAYLOAD_MAX_HELLO + 1;
    frame_encode(&f, &out);
    assert_int_equal(
        frame_decode(out.data, FRAME_HEADER_BYTES, FRAME_PAYLOAD_MAX_HELLO, &got, &used, &err),
        ERR_TOO_LARGE);
    assert_string_equal(err.text, "frame of 16385 bytes, at most 16384 are allowed here");
    assert_int_equal(frame_decode(out.data, out.len, FRAME_PAYLOAD_MAX, &got, &used, &err), 0);
    buf_reset(&out);
    f.payload_bytes = FRAME_PAYLOAD_MAX_HELLO;
    frame_encode(&f, &out);
    assert_int_equal(frame_decode(out.data, out.len, FRAME_PAYLOAD_MAX_HELLO, &got, &used, &err),
                     0);
    free(large);
    buf_fini(&out);
}

/* Another protocol is told apart at its first byte, not after 32. */
static void test_foreign(void **state)
{
    (void)state;
    struct frame got;
    size_t used;
    struct err err;
    assert_int_equal(frame_decode((const uint8_t *)"G", 1, 100, &got, &used, &err), ERR_PROTOCOL);
    assert_int_equal(frame_decode((const uint8_t *)"DSF2", 4, 100, &got, &used, &err),
                     ERR_PROTOCOL);
    assert_int_equal(frame_decode((const uint8_t *)"DSF", 3, 100, &got, &used, &err), ERR_AGAIN);
}

/* Noise behind a right magic and a possible length is refused. */
static void test_noise(void **state)
{
    (void)state;
    random_start("frame noise");
    uint8_t bytes[64];
    struct frame got;
    size_t used;
    for (int i = 0; i < 20000; i++) {
        for (size_t k = 0; k < sizeof bytes; k++) {
            bytes[k] = (uint8_t)random_next();
        }
        memcpy(bytes, "DSF1", 4);
        bytes[4] = (uint8_t)random_below(33);
        bytes[5] = bytes[6] = bytes[7] = 0;
        int rc = frame_decode(bytes, sizeof bytes, 100, &got, &used, NULL);
        assert_true(rc == ERR_PROTOCOL || rc == ERR_CORRUPT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout),    cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_truncated), cmocka_unit_test(test_bit_flips),
        cmocka_unit_test(test_oversized), cmocka_unit_test(test_foreign),
        cmocka_unit_test(test_noise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
