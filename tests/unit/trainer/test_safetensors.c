#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/file.h"
#include "trainer/safetensors.h"

static char dir[64];
static char path[128];

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_safetensors.XXXXXX");
    if (mkdtemp(dir) == NULL) {
        return -1;
    }
    snprintf(path, sizeof path, "%s/x.safetensors", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return file_remove_tree(dir, NULL);
}

static void write_file(const void *data, size_t len)
{
    assert_int_equal(file_write_durable(path, data, len, 0600, NULL), 0);
}

/* What is written is read back: names, shapes, metadata and every bit of the data. */
static void test_round_trip(void **state)
{
    (void)state;
    const struct safetensors_item items[] = {{"model.norm.weight", 3, 1, 1, NULL},
                                             {"a.weight", 2, 2, 0, "F32"},
                                             {"empty", 0, 5, 0, NULL},
                                             {"quote\"d\n\xc3\xa9", 1, 1, 0, NULL},
                                             {"half", 1, 3, 0, "BF16"},
                                             {"bytes", 2, 1, 0, "F8_E4M3"}};
    const struct safetensors_metadata metadata[] = {{"step", "100"}, {"layout", "{\"x\":1}"}};
    struct buf file = {0};
    safetensors_write_header(&file, items, 6, metadata, 2);
    assert_int_equal(file.len % 8, 0);
    const float data[8] = {1, -0.0f, 3.5f, 1e-40f, 5, 6, 7, -8};
    buf_append(&file, data, sizeof data);
    buf_append(&file, "abcdefgh", 8);
    write_file(file.data, file.len);

    struct safetensors s;
    struct err err = {0};
    if (safetensors_open(&s, path, &err) != 0) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(s.count, 6);
    assert_string_equal(s.metadata, "{\"layout\":\"{\\\"x\\\":1}\",\"step\":\"100\"}");
    const struct safetensors_tensor *t = safetensors_find(&s, "model.norm.weight");
    assert_non_null(t);
    assert_int_equal(t->dimensions, 1);
    assert_int_equal(t->shape[0], 3);
    float out[4];
    assert_int_equal(safetensors_read_f32(&s, t, out, 3, NULL), 0);
    assert_memory_equal(out, data, 12);
    t = safetensors_find(&s, "a.weight");
    assert_int_equal(t->dimensions, 2);
    assert_int_equal(safetensors_read_f32(&s, t, out, 4, NULL), 0);
    assert_memory_equal(out, data + 3, 16);
    assert_non_null(safetensors_find(&s, "empty"));
    t = safetensors_find(&s, "quote\"d\n\xc3\xa9");
    assert_non_null(t);
    assert_int_equal(safetensors_read_f32(&s, t, out, 1, NULL), 0);
    assert_memory_equal(out, data + 7, 4);
    t = safetensors_find(&s, "half");
    assert_string_equal(t->dtype, "BF16");
    char part[4] = "";
    assert_int_equal(safetensors_read_part(&s, t, 3, part, 3, NULL), 0);
    assert_string_equal(part, "def");
    t = safetensors_find(&s, "bytes");
    assert_string_equal(t->dtype, "F8_E4M3");
    assert_int_equal(t->end - t->begin, 2);
    assert_null(safetensors_find(&s, "nothing"));
    safetensors_close(&s);
    safetensors_close(&s);
    buf_fini(&file);
}

/* json with `data_bytes` of data behind it: accepted, or refused with the words and the tensor's
 * name. */
static void check(const char *json, uint64_t data_bytes, const char *says)
{
    struct safetensors s = {.fd = -1};
    struct err err = {0};
    int rc = safetensors_check_header(&s, json, strlen(json), data_bytes, "f.safetensors", &err);
    if (says == NULL) {
        if (rc != 0) {
            fail_msg("%s: %s", json, err.text);
        }
    } else {
        assert_int_equal(rc, ERR_CORRUPT);
        if (strstr(err.text, says) == NULL || strstr(err.text, "f.safetensors") == NULL) {
            fail_msg("%s: '%s' does not say '%s'", json, err.text, says);
        }
    }
    safetensors_close(&s);
}

#define T(shape, begin, end)                                                                       \
    "{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

/* Each kind of lie in the header is refused, with the tensor's name; legal oddities are not. */
static void test_header(void **state)
{
    (void)state;
    check("{\"a\":" T("[2]", "0", "8") "}", 8, NULL);
    check("{}", 0, NULL);
    check("{\"a\":" T("[]", "0", "4") "}", 4, NULL); /* a scalar */
    check("{\"b\":" T("[1]", "4", "8") ",\"a\":" T("[1]", "0", "4") "}", 8, NULL);
    check("{\"a\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[0,6],\"extra\":1}}", 6, NULL);
    check("{\"__metadata__\":{\"x\":\"y\"}}", 0, NULL);

    check("", 0, "no JSON object");
    check("[]", 0, "no JSON object");
    check("{\"a\":", 0, "no JSON object");
    check("{\"a\":" T("[2]", "0", "8") "} x", 8, "no JSON object");
    check("{}", 8, "cover 0 of 8");
    check("{\"a\":" T("[2]", "0", "8") "}", 12, "cover 8 of 12");
    check("{\"a\":" T("[2]", "0", "8") "}", 4, "tensor a: offsets 0..8 are outside the 4 bytes");
    check("{\"a\":" T("[3]", "0", "8") "}", 8, "tensor a: its shape takes 12 bytes");
    check("{\"a\":" T("[2]", "8", "0") "}", 8, "outside");
    check("{\"a\":" T("[2]", "-8", "0") "}", 8, "outside");
    check("{\"a\":" T("[-2]", "0", "8") "}", 8, "no list of sizes");
    check("{\"a\":" T("[4294967296,4294967296]", "0", "0") "}", 0, "overflows");
    check("{\"a\":" T("[9223372036854775807]", "0", "0") "}", 0, "overflows");
    check("{\"a\":" T("[1,1,1,1,1,1,1,1,1]", "0", "4") "}", 4, "9 dimensions");
    check("{\"a\":" T("[1]", "0", "4") ",\"b\":" T("[1]", "0", "4") "}", 4,
          "tensor b begins at byte 0");
    check("{\"a\":" T("[2]", "0", "8") ",\"b\":" T("[2]", "4", "12") "}", 12,
          "tensor b begins at byte 4");
    check("{\"a\":" T("[1]", "0", "4") ",\"b\":" T("[1]", "8", "12") "}", 12,
          "tensor b begins at byte 8");
    check("{\"a\":" T("[1]", "0", "4") ",\"a\":" T("[1]", "4", "8") "}", 8,
          "no JSON object: \"a\" is there twice");
    check("{\"a\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
          "unknown dtype F33");
    check("{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "tensor a: dtype");
    check("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "malformed");
    check("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "malformed");
    check("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4.0]}}", 4, "malformed");
    check("{\"a\":7}", 0, "malformed");
    check("{\"__metadata__\":{\"x\":1}}", 0, "__metadata__");
    check("{\"__metadata__\":[]}", 0, "__metadata__");
}

/* Every truncation of a file is refused, and so is a header length that lies. */
static void test_truncated(void **state)
{
    (void)state;
    const struct safetensors_item items[] = {{"w", 4, 4, 0, NULL}};
    struct buf file = {0};
    safetensors_write_header(&file, items, 1, NULL, 0);
    buf_append(&file, (const float[16]){0}, 64);
    struct safetensors s;
    for (size_t len = 0; len < file.len; len += len < 16 ? 1 : 7) {
        write_file(file.data, len);
        assert_int_equal(safetensors_open(&s, path, NULL), ERR_CORRUPT);
    }
    static const uint64_t lies[] = {0, 1, UINT64_MAX, SAFETENSORS_HEADER_MAX + 1, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        memcpy(file.data, &lies[i], 8);
        write_file(file.data, file.len);
        assert_int_equal(safetensors_open(&s, path, NULL), ERR_CORRUPT);
    }
    struct err err = {0};
    assert_int_equal(safetensors_open(&s, "/nonexistent/x", &err), ERR_NOT_FOUND);
    buf_fini(&file);
}

/* Random damage never crashes the reader, and what it accepts lies inside the file. */
static void test_random_damage(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    const char *good = "{\"a\":" T("[2]", "0", "8") ",\"bb\":" T(
        "[1,3]", "8", "20") ",\"__metadata__\":{\"k\":\"v\"}}";
    size_t len = strlen(good);
    char *json = malloc(len);
    for (int round = 0; round < 30000; round++) {
        memcpy(json, good, len);
        for (int n = rand() % 3; n >= 0; n--) {
            json[rand() % (int)len] = "0123456789[]{},:\"\\ab-e.\xff"[rand() % 24];
        }
        struct safetensors s = {.fd = -1};
        if (safetensors_check_header(&s, json, len, 20, "f", NULL) == 0) {
            for (size_t i = 0; i < s.count; i++) {
                assert_true(s.tensors[i].begin <= s.tensors[i].end && s.tensors[i].end <= 20);
            }
        }
        safetensors_close(&s);
    }
    free(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_random_damage),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
