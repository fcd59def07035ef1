#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/yaml.h"

/* Every type a table can read. */
struct inner {
    uint32_t small;
    double real;
};
struct outer {
    char *text;
    bool truth;
    uint32_t u32;
    uint64_t u64;
    int64_t i64;
    int choice;
    struct inner inner;
    size_t items;
};

static const char *const choices[] = {"red", "green", NULL};
static const struct yaml_field inner_fields[] = {{.key = "small",
                                                  .type = YAML_U32,
                                                  .offset = offsetof(struct inner, small),
                                                  .low = 2,
                                                  .high = 4},
                                                 {.key = "real",
                                                  .type = YAML_DOUBLE,
                                                  .offset = offsetof(struct inner, real),
                                                  .min = -1,
                                                  .max = 1},
                                                 {.key = NULL}};

static int count_items(const struct yaml_item *item, void *place, struct err *err)
{
    if (item->kind != YAML_ITEM_LIST) {
        return yaml_refuse(item, err, "a list is expected");
    }
    *(size_t *)place = item->count;
    return 0;
}

static const struct yaml_field outer_fields[] = {
    {.key = "text", .type = YAML_TEXT, .offset = offsetof(struct outer, text), .required = true},
    {.key = "truth", .type = YAML_BOOL, .offset = offsetof(struct outer, truth)},
    {.key = "u32", .type = YAML_U32, .offset = offsetof(struct outer, u32), .high = UINT32_MAX},
    {.key = "u64", .type = YAML_U64, .offset = offsetof(struct outer, u64), .high = UINT64_MAX},
    {.key = "i64",
     .type = YAML_I64,
     .offset = offsetof(struct outer, i64),
     .low = INT64_MIN,
     .high = INT64_MAX},
    {.key = "choice",
     .type = YAML_CHOICE,
     .offset = offsetof(struct outer, choice),
     .choices = choices},
    {.key = "inner",
     .type = YAML_MAP,
     .offset = offsetof(struct outer, inner),
     .fields = inner_fields},
    {.key = "list",
     .type = YAML_CUSTOM,
     .offset = offsetof(struct outer, items),
     .read = count_items},
    {.key = NULL}};

static int read_outer(struct outer *o, const char *text, struct err *err)
{
    struct yaml_tree tree;
    *err = (struct err){0};
    int rc = yaml_load(&tree, text, strlen(text), "f", err);
    if (rc == 0) {
        rc = yaml_read(tree.root, outer_fields, o, err);
        yaml_fini(&tree);
    }
    return rc;
}

/* Each type arrives, at its limits, also through aliases, block and flow style. */
static void test_types(void **state)
{
    (void)state;
    struct outer o = {0};
    struct err err;
    read_outer(&o,
               "text: &t |\n  two\n  lines\ntruth: true\nu32: 4294967295\nu64: "
               "18446744073709551615\ni64: -9223372036854775808\n"
               "choice: green\ninner: {small: 3, real: -1e-3}\nlist: [a, {b: c}, *t]\n",
               &err);
    assert_string_equal(err.text, "");
    assert_string_equal(o.text, "two\nlines\n");
    assert_true(o.truth);
    assert_int_equal(o.u32, UINT32_MAX);
    assert_int_equal(o.u64, UINT64_MAX);
    assert_true(o.i64 == INT64_MIN);
    assert_int_equal(o.choice, 1);
    assert_int_equal(o.inner.small, 3);
    assert_true(o.inner.real == -1e-3);
    assert_int_equal(o.items, 3);
    /* absent and null keep what was there; a text is replaced */
    read_outer(&o, "{\"text\": \"again\", \"truth\": null}", &err);
    assert_string_equal(err.text, "");
    assert_string_equal(o.text, "again");
    assert_true(o.truth);
    free(o.text);
}

/* Wrong types and values name place, key and what is allowed. */
static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"truth: true", "f:1:1: 'text' is missing"},
        {"text: ''", "f:1:7: key 'text': '' is not valid (allowed: not empty)"},
        {"text: [a]", "f:1:7: key 'text': a list where text is expected (allowed: one text)"},
        {"text: a\ntruth: yes",
         "f:2:8: key 'truth': yes is not a truth value (allowed: true, false)"},
        {"text: a\ntruth: 'true'",
         "f:2:8: key 'truth': text in quotes is not a truth value (allowed: true, false)"},
        {"text: a\nu32: 4294967296",
         "f:2:6: key 'u32': 4294967296 is out of range (allowed: 0 to 4294967295)"},
        {"text: a\nu32: -0", "f:2:6: key 'u32': -0 is out of range (allowed: 0 to 4294967295)"},
        {"text: a\nu32: 1_000",
         "f:2:6: key 'u32': 1_000 is not a whole number (allowed: 0 to 4294967295)"},
        {"text: a\nu32: 0x10",
         "f:2:6: key 'u32': 0x10 is not a whole number (allowed: 0 to 4294967295)"},
        {"text: a\ni64: 9223372036854775808",
         "f:2:6: key 'i64': 9223372036854775808 is out of range (allowed: -9223372036854775808 to "
         "9223372036854775807)"},
        {"text: a\nchoice: blue",
         "f:2:9: key 'choice': blue is not one of them (allowed: red, green)"},
        {"text: a\nchoice: {}",
         "f:2:9: key 'choice': a map is not one of them (allowed: red, green)"},
        {"text: a\ninner: {small: 5}",
         "f:2:16: key 'inner.small': 5 is out of range (allowed: 2 to 4)"},
        {"text: a\ninner: {real: 1.5}",
         "f:2:15: key 'inner.real': 1.5 is out of range (allowed: -1 to 1)"},
        {"text: a\ninner: {real: nan}",
         "f:2:15: key 'inner.real': nan is not a number (allowed: such as 0.1 or 2.2e-4)"},
        {"text: a\ninner: {real: 1e}",
         "f:2:15: key 'inner.real': 1e is not a number (allowed: such as 0.1 or 2.2e-4)"},
        {"text: a\ninner: 5", "f:2:8: key 'inner': 5 where a map is expected (key: value lines)"},
        {"text: a\nlist: 5", "f:2:7: key 'list': a list is expected"},
        {"text: a\ntxet: b", "f:2:1: key 'txet': unknown, did you mean 'text'? (allowed: text, "
                             "truth, u32, u64, i64, choice, inner, list)"},
        {"text: a\nreal: 1", "f:2:1: key 'real': unknown, did you mean 'inner.real'? (allowed: "
                             "text, truth, u32, u64, i64, choice, inner, list)"},
        {"text: a\nqqqqqqqq: 1", "f:2:1: key 'qqqqqqqq': unknown (allowed: text, truth, u32, u64, "
                                 "i64, choice, inner, list)"},
        {"text: a\ntext: b", "f:2:1: key 'text': given twice (first in line 1)"},
        {"text: a\nlist: [*x]", "f:2:8: not YAML: found undefined alias"},
        {"text: a\n<<: {b: c}",
         "f:2:1: key '<<': unknown (allowed: text, truth, u32, u64, i64, choice, inner, list)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct outer o = {0};
        struct err err;
        assert_int_equal(read_outer(&o, cases[i].text, &err), ERR_INVALID);
        assert_string_equal(err.text, cases[i].message);
        free(o.text);
    }
}

/* In an open table unknown keys pass, but not a slip of one letter from a key that is absent. */
static void test_open(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int rc;
    } cases[] = {{"small: 3\nother: 1", 0},
                 {"smal: 3", ERR_INVALID},
                 {"small: 3\nsmal: 4", 0},
                 {"smllx: 3", 0},
                 {"samll: 3", ERR_INVALID}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct yaml_tree tree;
        struct inner in = {0};
        assert_int_equal(yaml_load(&tree, cases[i].text, strlen(cases[i].text), "f", NULL), 0);
        assert_int_equal(yaml_read_open(tree.root, inner_fields, &in, NULL), cases[i].rc);
        yaml_fini(&tree);
    }
}

/* Overrides replace values of any kind and keep the order of keys; what they bring is freed with
 * the tree. */
static void test_set(void **state)
{
    (void)state;
    struct yaml_tree tree;
    struct err err;
    static const char text[] = "a: {b: [1, 2]}\nc: d";
    assert_int_equal(yaml_load(&tree, text, strlen(text), "f", &err), 0);
    assert_int_equal(yaml_set(&tree, "a.b={x: [1, {y: z}]}", &err), 0);
    assert_int_equal(yaml_set(&tree, "a.b.x=5", &err), 0);
    assert_int_equal(yaml_set(&tree, "new.deep.er=#not a comment: *really", &err), 0);
    assert_int_equal(yaml_set(&tree, "c=", &err), 0);
    const struct yaml_item *x = yaml_get(yaml_get(yaml_get(tree.root, "a"), "b"), "x");
    assert_string_equal(x->text, "5");
    assert_true(x->plain);
    assert_string_equal(yaml_get(yaml_get(yaml_get(tree.root, "new"), "deep"), "er")->text,
                        "#not a comment: *really");
    assert_null(yaml_get(tree.root, "c"));
    assert_string_equal(tree.root->items[0]->key, "a");
    yaml_refuse(x, &err, "no");
    assert_string_equal(err.text, "--set a.b.x=5: key 'a.b.x': no");
    assert_int_equal(yaml_set(&tree, "c.d=5", &err), 0); /* what was null becomes a map */
    assert_int_equal(yaml_set(&tree, "a.b.x.y=5", &err), ERR_INVALID);
    assert_int_equal(yaml_set(&tree, "a=\xff", &err), ERR_INVALID);
    assert_int_equal(yaml_set(&tree, "a=[1] [2]", &err), ERR_INVALID);
    assert_int_equal(yaml_set(&tree, "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q=5", &err), ERR_INVALID);
    yaml_fini(&tree);
    assert_int_equal(yaml_load(&tree, "", 0, "f", &err), 0);
    assert_int_equal(yaml_set(&tree, "a.b=5", &err), 0);
    assert_string_equal(yaml_get(yaml_get(tree.root, "a"), "b")->text, "5");
    yaml_fini(&tree);
    yaml_fini(&tree);
}

/* The bounds hold at their edge: 16 levels and 1000 keys pass, one more does not. */
static void test_bounds(void **state)
{
    (void)state;
    for (int extra = 0; extra < 2; extra++) {
        struct yaml_tree tree;
        char deep[64] = {0};
        int levels = 15 + extra;
        memset(deep, '[', (size_t)levels);
        deep[levels] = 'x';
        memset(deep + levels + 1, ']', (size_t)levels);
        assert_int_equal(yaml_load(&tree, deep, strlen(deep), "f", NULL), extra ? ERR_INVALID : 0);
        yaml_fini(&tree);
        static char wide[16000];
        size_t len = 0;
        for (int i = 0; i < 1000 + extra; i++) {
            len += (size_t)snprintf(wide + len, sizeof wide - len, "k%d: 1\n", i);
        }
        assert_int_equal(yaml_load(&tree, wide, len, "f", NULL), extra ? ERR_INVALID : 0);
        yaml_fini(&tree);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types), cmocka_unit_test(test_refused), cmocka_unit_test(test_open),
        cmocka_unit_test(test_set),   cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
