#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "tests/unit/random.h"
#include "trainer/reshard.h"

/* A name with a range says which elements it is of; what is no range, or not of so many elements,
 * is refused. */
static void test_names(void **state)
{
    (void)state;
    char name[RESHARD_NAME_BYTES];
    struct reshard_run run;
    reshard_name(name, "optimizer.m.a.b", 16, 48, false);
    assert_string_equal(name, "optimizer.m.a.b[16:64]");
    assert_int_equal(reshard_parse(&run, name, 48, NULL), 0);
    assert_string_equal(run.name, "optimizer.m.a.b");
    assert_true(run.first == 16 && run.count == 48 && !run.whole);
    reshard_name(name, "a", 0, 9, true);
    assert_string_equal(name, "a");
    assert_int_equal(reshard_parse(&run, name, 9, NULL), 0);
    assert_true(run.first == 0 && run.count == 9 && run.whole);
    static const char *const bad[] = {"a[0:9]",
                                      "a[0:8",
                                      "a[0:8]x",
                                      "a[8:0]",
                                      "a[:8]",
                                      "a[0:]",
                                      "a[-8:0]",
                                      "a[ 0:8]",
                                      "a[0,8]",
                                      "a[0x0:8]",
                                      "[0:8]",
                                      "",
                                      "a[1:18446744073709551617]",
                                      "a[18446744073709551608:0]"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = {0};
        assert_int_equal(reshard_parse(&run, bad[i], 8, &err), ERR_CORRUPT);
        assert_true(err.text[0] != 0);
    }
}

/* Any cutting of a tensor gives back any other: element by element what stood there. */
static void test_any_to_any(void **state)
{
    (void)state;
    for (int round = 0; round < 300; round++) {
        enum { TENSORS = 3 };
        uint32_t total[TENSORS];
        float *saved[200];
        struct reshard_map map = {0};
        uint32_t files = 0;
        for (uint32_t t = 0; t < TENSORS; t++) {
            total[t] = 1 + (uint32_t)random_below(500);
            for (uint32_t at = 0; at < total[t] && files < 200;) {
                uint32_t n = files == 199 ? total[t] : 1 + (uint32_t)random_below(total[t]);
                n = n < total[t] - at ? n : total[t] - at;
                struct reshard_run run = {
                    .first = at, .count = n, .whole = n == total[t], .file = files};
                snprintf(run.name, sizeof run.name, "tensor.%u", t);
                saved[files] = mem_alloc_array(n, sizeof(float));
                for (uint32_t i = 0; i < n; i++) {
                    saved[files][i] = (float)(1000 * t + at + i);
                }
                reshard_map_add(&map, &run);
                files++;
                at += n;
            }
        }
        const struct reshard_run *a, *b;
        for (size_t i = map.count; i > 1; i--) { /* files come in any order */
            size_t k = (size_t)random_below(i);
            struct reshard_run swap = map.run[i - 1];
            map.run[i - 1] = map.run[k];
            map.run[k] = swap;
        }
        assert_int_equal(reshard_map_sort(&map, &a, &b), 0);
        for (int k = 0; k < 20; k++) {
            uint32_t t = (uint32_t)random_below(TENSORS);
            uint32_t first = (uint32_t)random_below(total[t]);
            uint32_t count = 1 + (uint32_t)random_below(total[t] - first);
            char name[32];
            struct reshard_copy *copies;
            size_t n;
            float out[500];
            snprintf(name, sizeof name, "tensor.%u", t);
            assert_int_equal(reshard_map_find(&map, name, first, count, &copies, &n, NULL), 0);
            uint64_t at = 0;
            for (size_t i = 0; i < n; i++) {
                const struct reshard_copy *c = &copies[i];
                assert_true(c->count > 0 && c->to == at && c->from + c->count <= c->run->count);
                memcpy(out + c->to, saved[c->run->file] + c->from, c->count * sizeof *out);
                at += c->count;
            }
            assert_true(at == count);
            for (uint32_t i = 0; i < count; i++) {
                assert_true(out[i] == (float)(1000 * t + first + i));
            }
            free(copies);
        }
        reshard_map_fini(&map);
        for (uint32_t i = 0; i < files; i++) {
            free(saved[i]);
        }
    }
}

static void add(struct reshard_map *map, const char *saved_name, uint64_t elements)
{
    struct reshard_run run;
    assert_int_equal(reshard_parse(&run, saved_name, elements, NULL), 0);
    reshard_map_add(map, &run);
}

/* Elements that nobody saved are told, elements that two saved are, too. */
static void test_holes(void **state)
{
    (void)state;
    struct reshard_map map = {0};
    const struct reshard_run *a = NULL, *b = NULL;
    struct reshard_copy *copies;
    size_t n;
    struct err err = {0};
    add(&map, "x[0:10]", 10);
    add(&map, "x[20:30]", 10);
    add(&map, "xy", 50);
    assert_int_equal(reshard_map_sort(&map, &a, &b), 0);
    assert_int_equal(reshard_map_find(&map, "x", 5, 10, &copies, &n, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.text, "tensor x: elements 10"));
    assert_null(copies);
    assert_int_equal(reshard_map_find(&map, "x", 12, 4, &copies, &n, NULL), ERR_CORRUPT);
    assert_int_equal(reshard_map_find(&map, "x", 25, 6, &copies, &n, NULL), ERR_CORRUPT);
    assert_int_equal(reshard_map_find(&map, "y", 0, 1, &copies, &n, NULL), ERR_CORRUPT);
    assert_int_equal(reshard_map_find(&map, "x", 20, 10, &copies, &n, NULL), 0);
    assert_int_equal(n, 1);
    free(copies);
    assert_string_equal(reshard_map_first(&map, "x")->name, "x");
    assert_null(reshard_map_first(&map, "z"));
    add(&map, "x[9:12]", 3);
    assert_int_equal(reshard_map_sort(&map, &a, &b), ERR_CORRUPT);
    assert_true(a->first == 0 && b->first == 9);
    reshard_map_fini(&map);
    add(&map, "x", 4);
    add(&map, "x", 4);
    assert_int_equal(reshard_map_sort(&map, &a, &b), ERR_CORRUPT);
    reshard_map_fini(&map);
}

int main(void)
{
    random_start("test_reshard");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_any_to_any),
        cmocka_unit_test(test_holes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
