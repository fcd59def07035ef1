#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "trainer/hf_index.h"

/* Entries come sorted by tensor, files sorted and each once; metadata is nobody's business. */
static void test_good(void **state)
{
    (void)state;
    static const char json[] =
        "{\"metadata\": {\"total_size\": 12}, \"weight_map\": {\"c\": \"m-2.safetensors\", \"a\": "
        "\"m-2.safetensors\", \"b\": \"m-1.safetensors\"}}";
    struct hf_index x;
    struct err err = {0};
    if (hf_index_parse(&x, json, strlen(json), "i.json", &err) != 0) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(x.count, 3);
    assert_string_equal(x.entry[0].tensor, "a");
    assert_string_equal(x.entry[0].file, "m-2.safetensors");
    assert_string_equal(x.entry[1].tensor, "b");
    assert_string_equal(x.entry[1].file, "m-1.safetensors");
    assert_string_equal(x.entry[2].tensor, "c");
    assert_int_equal(x.file_count, 2);
    assert_string_equal(x.file[0], "m-1.safetensors");
    assert_string_equal(x.file[1], "m-2.safetensors");
    hf_index_fini(&x);
    hf_index_fini(&x);
}

/* What is wrong is refused with the index's name and, where it is about a tensor, with that. */
static void test_bad(void **state)
{
    (void)state;
    static const struct {
        const char *json, *says;
    } cases[] = {
        {"", "not an index"},
        {"{\"weight_map\": {\"a\": \"x.safetensors\"", "not an index"},
        {"[]", "weight_map is missing"},
        {"{}", "weight_map is missing"},
        {"{\"weight_map\": {}}", "weight_map is missing, empty"},
        {"{\"weight_map\": [\"a\"]}", "weight_map is missing"},
        {"{\"weight_map\": {\"a.b\": 5}}", "tensor a.b: '' is not the name"},
        {"{\"weight_map\": {\"a.b\": \"\"}}", "tensor a.b: ''"},
        {"{\"weight_map\": {\"a.b\": \".safetensors\"}}", "tensor a.b: '.safetensors'"},
        {"{\"weight_map\": {\"a.b\": \"x.bin\"}}", "tensor a.b: 'x.bin'"},
        {"{\"weight_map\": {\"a.b\": \"../x.safetensors\"}}", "tensor a.b: '../x.safetensors'"},
        {"{\"weight_map\": {\"a.b\": \"/etc/x.safetensors\"}}", "tensor a.b: "},
        {"{\"weight_map\": {\"a.b\": \"d/x.safetensors\"}}", "tensor a.b: "},
        {"{\"weight_map\": {\"a.b\": \"x.safetensors\", \"a.b\": \"y.safetensors\"}}",
         "\"a.b\" is there twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hf_index x;
        struct err err = {0};
        assert_int_equal(
            hf_index_parse(&x, cases[i].json, strlen(cases[i].json), "dir/i.json", &err),
            ERR_CORRUPT);
        if (strstr(err.text, cases[i].says) == NULL || strstr(err.text, "dir/i.json") == NULL) {
            fail_msg("%s: '%s' does not say '%s'", cases[i].json, err.text, cases[i].says);
        }
        assert_null(x.entry);
        assert_null(x.file);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_good), cmocka_unit_test(test_bad)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
