#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/file.h"
#include "trainer/data.h"

static char dir[64];

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_data.XXXXXX");
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return file_remove_tree(dir, NULL);
}

static void put(struct buf *b, uint64_t v, size_t bytes)
{
    buf_append(b, &v, bytes); /* little-endian machine, as the format */
}

/* An index of three sequences in two documents; where the parts are, for the tests that damage
 * them. */
enum {
    LENGTHS = 34,
    POINTERS = LENGTHS + 12,
    DOCUMENTS = POINTERS + 24,
    INDEX_BYTES = DOCUMENTS + 24
};

static void build_index(struct buf *b, unsigned type, uint64_t token_bytes)
{
    buf_reset(b);
    buf_append(b, DATA_MAGIC, DATA_MAGIC_BYTES);
    put(b, 1, 8);
    put(b, type, 1);
    put(b, 3, 8);
    put(b, 3, 8);
    put(b, 5, 4);
    put(b, 0, 4);
    put(b, 2, 4);
    put(b, 0, 8);
    put(b, 5 * token_bytes, 8);
    put(b, 5 * token_bytes, 8);
    put(b, 0, 8);
    put(b, 2, 8);
    put(b, 3, 8);
    assert_int_equal(b->len, INDEX_BYTES);
}

static void write_file(const char *name, const void *data, size_t len)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(file_write_durable(path, data, len, 0600, NULL), 0);
}

/* Every integer type is read as the numbers that were written, across chunk borders of the stream.
 */
static void test_types(void **state)
{
    (void)state;
    static const struct {
        unsigned code;
        size_t bytes;
    } types[] = {{DATA_UINT8, 1},  {DATA_INT8, 1},  {DATA_INT16, 2},
                 {DATA_UINT16, 2}, {DATA_INT32, 4}, {DATA_INT64, 8}};
    for (size_t k = 0; k < sizeof types / sizeof types[0]; k++) {
        struct buf idx = {0};
        struct buf bin = {0};
        build_index(&idx, types[k].code, types[k].bytes);
        for (uint64_t i = 0; i < 7; i++) {
            put(&bin, 10 * i, types[k].bytes);
        }
        write_file("t.idx", idx.data, idx.len);
        write_file("t.bin", bin.data, bin.len);
        char prefix[128];
        snprintf(prefix, sizeof prefix, "%s/t", dir);
        struct dataset d;
        struct err err = {0};
        assert_int_equal(dataset_open(&d, prefix, &err), 0);
        assert_int_equal(d.tokens, 7);
        assert_int_equal(d.sequences, 3);
        assert_int_equal(d.documents, 2);
        int32_t out[7];
        assert_int_equal(dataset_read(&d, 0, 7, 61, out, &err), 0);
        for (int i = 0; i < 7; i++) {
            assert_int_equal(out[i], 10 * i);
        }
        assert_int_equal(dataset_read(&d, 3, 4, 61, out, &err), 0);
        assert_int_equal(out[0], 30);
        assert_int_equal(dataset_read(&d, 7, 0, 61, out, &err), 0);
        dataset_close(&d);
        dataset_close(&d);
        buf_fini(&idx);
        buf_fini(&bin);
    }
}

/* A token outside the vocabulary is refused with its value and position, negative ones too. */
static void test_vocabulary(void **state)
{
    (void)state;
    struct buf idx = {0};
    struct buf bin = {0};
    build_index(&idx, DATA_INT32, 4);
    for (uint64_t i = 0; i < 7; i++) {
        put(&bin, i == 4 ? 300 : i == 6 ? (uint64_t)-5 : i, 4);
    }
    write_file("v.idx", idx.data, idx.len);
    write_file("v.bin", bin.data, bin.len);
    char prefix[128];
    snprintf(prefix, sizeof prefix, "%s/v", dir);
    struct dataset d;
    struct err err = {0};
    int32_t out[7];
    assert_int_equal(dataset_open(&d, prefix, &err), 0);
    assert_int_equal(dataset_read(&d, 0, 4, 300, out, &err), 0);
    assert_int_equal(dataset_read(&d, 0, 5, 300, out, &err), ERR_DATA);
    assert_non_null(strstr(err.text, "token 300 at position 4"));
    assert_int_equal(dataset_read(&d, 4, 1, 301, out, &err), 0);
    assert_int_equal(dataset_read(&d, 6, 1, 301, out, &err), ERR_DATA);
    assert_non_null(strstr(err.text, "token -5 at position 6"));
    /* the file shrinks under us: an error, not a crash */
    char path[128];
    snprintf(path, sizeof path, "%s/v.bin", dir);
    assert_int_equal(truncate(path, 9), 0);
    assert_int_equal(dataset_read(&d, 0, 4, 300, out, &err), ERR_DATA);
    assert_non_null(strstr(err.text, "shorter"));
    dataset_close(&d);
    buf_fini(&idx);
    buf_fini(&bin);
}

static void check_damage(struct buf *idx, size_t at, uint64_t value, size_t bytes, const char *says)
{
    build_index(idx, DATA_UINT16, 2);
    memcpy(idx->data + at, &value, bytes);
    struct dataset d = {0};
    struct err err = {0};
    assert_int_equal(dataset_check_index(&d, idx->data, idx->len, 14, "x.idx", &err), ERR_DATA);
    assert_non_null(strstr(err.text, "x.idx"));
    if (strstr(err.text, says) == NULL) {
        fail_msg("'%s' does not say '%s'", err.text, says);
    }
}

/* Each kind of lie in the index is refused with words that fit. */
static void test_damage(void **state)
{
    (void)state;
    struct buf idx = {0};
    check_damage(&idx, 0, 'X', 1, "MMIDIDX");
    check_damage(&idx, 8, 1, 1, "MMIDIDX");
    check_damage(&idx, 9, 2, 8, "version 2");
    check_damage(&idx, 17, 6, 1, "type code 6");
    check_damage(&idx, 17, 0, 1, "type code 0");
    check_damage(&idx, 18, 4, 8, "truncated");
    check_damage(&idx, 18, UINT64_MAX, 8, "truncated");
    check_damage(&idx, 18, UINT64_MAX / 12 + 2, 8, "truncated");
    check_damage(&idx, 26, 4, 8, "truncated");
    check_damage(&idx, 26, 0, 8, "no documents");
    check_damage(&idx, 26, (uint64_t)1 << 61, 8, "truncated");
    check_damage(&idx, LENGTHS, (uint32_t)-1, 4, "length -1");
    check_damage(&idx, LENGTHS, INT32_MAX, 4, "only 14");
    check_damage(&idx, LENGTHS, 4, 4, "a gap");
    check_damage(&idx, LENGTHS, 6, 4, "overlap");
    check_damage(&idx, LENGTHS + 8, 1, 4, "cover 12 bytes");
    check_damage(&idx, POINTERS, 2, 8, "a gap");
    check_damage(&idx, POINTERS + 8, (uint64_t)-2, 8, "negative");
    check_damage(&idx, POINTERS + 16, 8, 8, "overlap");
    check_damage(&idx, DOCUMENTS, 1, 8, "document 0");
    check_damage(&idx, DOCUMENTS + 8, 4, 8, "document 1");
    check_damage(&idx, DOCUMENTS + 8, (uint64_t)-1, 8, "document 1");
    check_damage(&idx, DOCUMENTS + 16, 2, 8, "last sequence");
    build_index(&idx, DATA_UINT16, 2);
    for (size_t len = 0; len < idx.len; len++) { /* every truncation */
        struct dataset d = {0};
        assert_int_equal(dataset_check_index(&d, idx.data, len, 14, "x.idx", NULL), ERR_DATA);
    }
    buf_fini(&idx);
}

/* No random damage is accepted as another corpus of the same .bin, or crashes: accepted means
 * covering exactly the .bin. */
static void test_random_damage(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    struct buf idx = {0};
    for (int round = 0; round < 20000; round++) {
        build_index(&idx, DATA_UINT16, 2);
        for (int n = rand() % 4; n >= 0; n--) {
            idx.data[rand() % (int)idx.len] = (uint8_t)rand();
        }
        struct dataset d = {0};
        struct err err = {0};
        if (dataset_check_index(&d, idx.data, idx.len, 14, "x.idx", &err) == 0) {
            assert_int_equal(d.tokens * d.token_bytes, 14);
        } else {
            assert_int_equal(err.code, ERR_DATA);
        }
    }
    buf_fini(&idx);
}

/* Missing files are told apart from bad ones. */
static void test_missing(void **state)
{
    (void)state;
    struct dataset d;
    struct err err = {0};
    char prefix[128];
    snprintf(prefix, sizeof prefix, "%s/none", dir);
    assert_int_equal(dataset_open(&d, prefix, &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "none.idx"));
    struct buf idx = {0};
    build_index(&idx, DATA_UINT16, 2);
    write_file("none.idx", idx.data, idx.len);
    assert_int_equal(dataset_open(&d, prefix, &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "none.bin"));
    write_file("none.bin", "0123456789abcd", 13);
    assert_int_equal(dataset_open(&d, prefix, &err), ERR_DATA);
    write_file("none.idx", "", 0);
    assert_int_equal(dataset_open(&d, prefix, &err), ERR_DATA);
    buf_fini(&idx);
}

/* Corpora that Megatron-LM's own writer made (tests/reference/check_megatron.py --vectors), of each
 * type: the tokens of expected.json. Its multimodal one is refused. */
static void test_of_others(void **state)
{
    (void)state;
    static const char folder[] = "tests/reference/vectors/megatron";
    char path[256];
    const char *type;
    json_t *tokens;
    struct err err = {0};
    struct dataset d;
    snprintf(path, sizeof path, "%s/expected.json", folder);
    json_t *expected = json_load_file(path, 0, NULL);
    assert_int_equal(json_object_size(expected), 6);
    json_object_foreach(expected, type, tokens)
    {
        int32_t out[256];
        size_t count = json_array_size(tokens);
        assert_in_range(count, 1, 256);
        snprintf(path, sizeof path, "%s/%s", folder, type);
        if (dataset_open(&d, path, &err) != 0) {
            fail_msg("%s", err.text);
        }
        assert_int_equal(d.tokens, count);
        assert_true(d.sequences > d.documents);
        assert_int_equal(dataset_read(&d, 0, count, INT32_MAX, out, NULL), 0);
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(out[i], json_integer_value(json_array_get(tokens, i)));
        }
        dataset_close(&d);
    }
    json_decref(expected);
    snprintf(path, sizeof path, "%s/multimodal", folder);
    assert_int_equal(dataset_open(&d, path, &err), ERR_DATA);
    assert_non_null(strstr(err.text, "multimodal"));
    snprintf(path, sizeof path, "%s/float32", folder);
    assert_int_equal(dataset_open(&d, path, &err), ERR_DATA);
    assert_non_null(strstr(err.text, "type code 7"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),   cmocka_unit_test(test_vocabulary),
        cmocka_unit_test(test_damage),  cmocka_unit_test(test_random_damage),
        cmocka_unit_test(test_missing), cmocka_unit_test(test_of_others),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
