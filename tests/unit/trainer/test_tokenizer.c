/* The tokenizer against vectors that the package `tokenizers` computed (tests/reference/
 * check_tokenizer.py --vectors), and what a tokenizer.json is refused for. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* after the four above, as cmocka wants it */
#include <cmocka.h>
#include <jansson.h>

#include "lib/mem.h"
#include "trainer/tokenizer.h"
#include "trainer/tokenizer_bytes.h"
#include "trainer/tokenizer_json.h"

#define VECTORS "tests/reference/vectors/tokenizer"

static struct tokenizer *parse(const char *name, const json_t *json)
{
    struct tokenizer *t;
    struct err err = {0};
    char *text = json_dumps(json, 0);
    if (tokenizer_json_parse(&t, text, strlen(text), name, &err) != 0) {
        fail_msg("%s", err.text);
    }
    free(text);
    return t;
}

static size_t unhex(const char *hex, uint8_t *out)
{
    size_t bytes = strlen(hex) / 2;
    for (size_t i = 0; i < bytes; i++) {
        unsigned byte;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        out[i] = (uint8_t)byte;
    }
    return bytes;
}

static void check_decoded(const struct tokenizer *t, const struct token_ids *ids, bool skip,
                          const json_t *want)
{
    struct buf text = {0};
    tokenizer_decode(t, ids->ids, ids->count, skip, &text);
    assert_int_equal(text.len, json_string_length(want));
    assert_memory_equal(buf_cstr(&text), json_string_value(want), text.len);
    buf_fini(&text);
}

static void check_case(const struct tokenizer *t, struct tokenizer_encoder *e, const char *name,
                       size_t index, const json_t *row)
{
    const char *hex = json_string_value(json_object_get(row, "text"));
    const json_t *want = json_object_get(row, "ids");
    uint8_t *text = mem_alloc(strlen(hex) / 2 + 1);
    struct token_ids ids = {0};
    size_t bytes = unhex(hex, text);
    assert_int_equal(tokenizer_encode(e, text, bytes, true, &ids, NULL), 0);
    if (ids.count != json_array_size(want)) {
        fail_msg("%s, case %zu: %zu ids, %zu are wanted", name, index, ids.count,
                 json_array_size(want));
    }
    for (size_t i = 0; i < ids.count; i++) {
        if (ids.ids[i] != json_integer_value(json_array_get(want, i))) {
            fail_msg("%s, case %zu: id %zu is %u", name, index, i, ids.ids[i]);
        }
    }
    check_decoded(t, &ids, false, json_object_get(row, "decoded"));
    check_decoded(t, &ids, true, json_object_get(row, "bare"));
    token_ids_fini(&ids);
    free(text);
}

static void check_vectors(const char *name)
{
    char path[512];
    json_error_t why;
    size_t i;
    json_t *row;
    snprintf(path, sizeof path, VECTORS "/%s", name);
    json_t *root = json_load_file(path, JSON_ALLOW_NUL, &why);
    if (root == NULL) {
        fail_msg("%s: %s", path, why.text);
    }
    struct tokenizer *t = parse(name, json_object_get(root, "tokenizer"));
    struct tokenizer_encoder *e = tokenizer_encoder_create(t);
    json_array_foreach(json_object_get(root, "cases"), i, row)
    {
        check_case(t, e, name, i, row);
    }
    assert_true(i > 0);
    tokenizer_encoder_destroy(e);
    tokenizer_close(t);
    json_decref(root);
}

/* Every vector: the ids of a text with what the post-processor puts around it, and its text again
 * with and without special tokens. */
static void test_vectors(void **state)
{
    (void)state;
    struct dirent **names;
    size_t checked = 0;
    int count = scandir(VECTORS, &names, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        if (names[i]->d_name[0] != '.') {
            check_vectors(names[i]->d_name);
            checked++;
        }
        free(names[i]);
    }
    assert_true(count > 0 && checked >= 5);
    free(names);
}

/* Bytes are their own ids, and come back; those that are no UTF-8 become U+FFFD. */
static void test_bytes(void **state)
{
    (void)state;
    struct tokenizer *t;
    struct token_ids ids = {0};
    struct buf text = {0};
    assert_int_equal(tokenizer_open(&t, "bytes", NULL), 0);
    struct tokenizer_encoder *e = tokenizer_encoder_create(t);
    assert_int_equal(tokenizer_encode(e, "a\xc3\xa9\xff", 4, true, &ids, NULL), 0);
    token_ids_add(&ids, (uint32_t)t->eod);
    assert_int_equal(ids.count, 5);
    assert_int_equal(ids.ids[3], 0xff);
    assert_int_equal(ids.ids[4], 256);
    tokenizer_decode(t, ids.ids, ids.count, false, &text);
    assert_string_equal(buf_cstr(&text), "a\xc3\xa9\xef\xbf\xbd");
    tokenizer_encoder_destroy(e);
    tokenizer_close(t);
    token_ids_fini(&ids);
    buf_fini(&text);
}

/* ---- refusals: a file of letters a, b, c and one merge, with one value changed */

#define MODEL(extra)                                                                               \
    "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"?\":4},\"merges\":[\"a "      \
    "b\"],\"unk_token\":\"?\"" extra "}"
#define ADDED(id, text, extra)                                                                     \
    "[{\"id\":" id ",\"content\":\"" text                                                          \
    "\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":" \
    "true" extra "}]"

static const struct {
    const char *json, *why; /* why: a part of the message */
} refused[] = {
    {"[]", "no object"},
    {"{\"model\":", "line 1"},
    {"{\"model\":{\"type\":\"Unigram\"}}", "model.type is \"Unigram\": not supported (BPE is)"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", "text would be lost"},
    {"{\"model\":" MODEL(",\"dropout\":0.1") "}", "model.dropout is 0.1"},
    {"{\"model\":" MODEL(",\"end_of_word_suffix\":\"</w>\"") "}", "model.end_of_word_suffix"},
    {"{\"model\":" MODEL(",\"new_option\":true") "}", "this key is not known"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", "model.vocab.a is -1"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":99999999},\"merges\":[]}}", "99999999"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1,\"b\":1},\"merges\":[]}}", "has this id too"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1,\"a\":2},\"merges\":[]}}", "duplicate"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1},\"merges\":[\"a z\"]}}", "no token \"z\""},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1},\"merges\":[\"a a\"]}}", "no token \"aa\""},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1},\"merges\":[7]}}", "model.merges[0] is 7"},
    {"{\"model\":" MODEL("") ",\"version\":\"2.0\"}", "version is \"2.0\""},
    {"{\"model\":" MODEL("") ",\"truncation\":{\"max_length\":5}}", "truncation"},
    {"{\"model\":" MODEL("") ",\"padding\":{\"strategy\":{\"Fixed\":5}}}", "padding"},
    {"{\"model\":" MODEL("") ",\"normalizer\":{\"type\":\"Lowercase\"}}",
     "normalizer.type is \"Lowercase\": not supported"},
    {"{\"model\":" MODEL("") ",\"pre_tokenizer\":{\"type\":\"Metaspace\"}}",
     "pre_tokenizer.type is \"Metaspace\": not supported"},
    {"{\"model\":" MODEL(
         "") ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a\"},"
             "\"behavior\":\"Isolated\",\"invert\":false}}",
     "a ( without )"},
    {"{\"model\":" MODEL("") ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},"
                             "\"behavior\":\"Odd\",\"invert\":false}}",
     "pre_tokenizer.behavior is \"Odd\""},
    {"{\"model\":" MODEL("") ",\"decoder\":{\"type\":\"WordPiece\"}}",
     "decoder.type is \"WordPiece\": not supported"},
    {"{\"model\":" MODEL("") ",\"post_processor\":{\"type\":\"BertProcessing\"}}",
     "post_processor.type is \"BertProcessing\": not supported"},
    {"{\"model\":" MODEL("") ",\"added_tokens\":" ADDED("9", "<s>", "") "}",
     "added_tokens[0].id is 9: the next free id is 5"},
    {"{\"model\":" MODEL("") ",\"added_tokens\":" ADDED("1", "<s>", "") "}", "gives this id to"},
    {"{\"model\":" MODEL("") ",\"added_tokens\":" ADDED("2", "a", "") "}", "the id 0"},
    {"{\"model\":" MODEL("") ",\"added_tokens\":" ADDED("5", "", "") "}", "a token has 1 to"},
    {"{\"model\":" MODEL("") ",\"added_tokens\":" ADDED("5", "x", ",\"odd\":1") "}", "not known"},
};

/* Each broken or unsupported file is refused with its name, the place and the reason, in one line.
 */
static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        struct tokenizer *t;
        struct err err = {0};
        int rc = tokenizer_json_parse(&t, refused[i].json, strlen(refused[i].json), "x.json", &err);
        if (rc != ERR_DATA || t != NULL || strncmp(err.text, "x.json: ", 8) != 0 ||
            strchr(err.text, '\n') != NULL || strstr(err.text, refused[i].why) == NULL) {
            fail_msg("%s: %d \"%s\", wanted is \"%s\"", refused[i].json, rc, err.text,
                     refused[i].why);
        }
    }
}

/* The file that the refused ones were made of is taken. */
static void test_taken(void **state)
{
    (void)state;
    static const char json[] =
        "{\"model\":" MODEL("") ",\"added_tokens\":" ADDED("5", "<s>", "") "}";
    struct tokenizer *t;
    struct token_ids ids = {0};
    uint32_t id;
    assert_int_equal(tokenizer_json_parse(&t, json, strlen(json), "x.json", NULL), 0);
    assert_int_equal(t->vocab, 6);
    assert_true(tokenizer_find(t, "<s>", &id) && id == 5);
    assert_false(tokenizer_find(t, "<t>", &id));
    struct tokenizer_encoder *e = tokenizer_encoder_create(t);
    assert_int_equal(tokenizer_encode(e, "abc<s>z", 7, false, &ids, NULL), 0);
    const uint32_t want[] = {3, 2, 5, 4};
    assert_int_equal(ids.count, 4);
    assert_memory_equal(ids.ids, want, sizeof want);
    tokenizer_encoder_destroy(e);
    tokenizer_close(t);
    token_ids_fini(&ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_vectors), cmocka_unit_test(test_bytes),
                                       cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_taken)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
