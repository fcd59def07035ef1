/* train.recipe in the job file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/jobspec.h"

static int parse(struct jobspec *spec, const char *precision, const char *recipe, struct err *err)
{
    char yaml[1000];
    snprintf(yaml, sizeof yaml,
             "name: a\n"
             "train:\n"
             "  model: m.json\n"
             "  data: {train: d}\n"
             "  global_batch: 1\n"
             "  steps: 1\n"
             "%s"
             "  precision: %s\n",
             recipe, precision);
    return jobspec_parse(spec, yaml, strlen(yaml), "job.yaml", "/x", NULL, 0, err);
}

/* Each choice of the published recipe is the default in FP8, and none of them is made in BF16 and
 * FP32. */
static void test_defaults(void **state)
{
    (void)state;
    static const char *const names[] = {"fp32", "bf16", "fp8"};
    for (int i = 0; i < 3; i++) {
        struct jobspec s;
        struct err err = {0};
        enum precision p = (enum precision)i;
        assert_int_equal(parse(&s, names[i], "", &err), 0);
        const struct recipe *r = &s.train.recipe;
        assert_true(r->fprop == p && r->dgrad == p && r->wgrad == p && r->dispatch == p);
        assert_int_equal(r->swiglu_input, p);
        assert_int_equal(r->rest, p == PRECISION_BF16 ? PRECISION_BF16 : PRECISION_FP32);
        assert_int_equal(r->attention_output,
                         p == PRECISION_FP8 ? RECIPE_CACHE_E5M6 : (enum recipe_cache)p);
        assert_int_equal(r->combine, p == PRECISION_FP32 ? PRECISION_FP32 : PRECISION_BF16);
        assert_int_equal(r->moments, p == PRECISION_FP8 ? PRECISION_BF16 : PRECISION_FP32);
        assert_int_equal(r->x_tile, RECIPE_TILE_ROW);
        assert_int_equal(r->dy_tile, RECIPE_TILE_ROW);
        assert_int_equal(r->dispatch_scale, RECIPE_SCALE_POW2);
        assert_int_equal(r->recompute_norm, p == PRECISION_FP8);
        assert_int_equal(r->recompute_mla_up, p == PRECISION_FP8);
        assert_int_equal(r->recompute_swiglu, RECIPE_YES);
        jobspec_fini(&s);
    }
}

/* A key is set on its own, whatever stands first, and comes out of the canonical JSON again. */
static void test_one_key(void **state)
{
    (void)state;
    struct jobspec s, again;
    struct err err = {0};
    assert_int_equal(parse(&s, "fp8",
                           "  recipe: {dy_tile: 128x128, recompute_norm: false, moments: fp32}\n",
                           &err),
                     0);
    struct recipe wanted = recipe_of(PRECISION_FP8);
    wanted.dy_tile = RECIPE_TILE_BLOCK;
    wanted.recompute_norm = RECIPE_NO;
    wanted.moments = PRECISION_FP32;
    assert_true(recipe_equal(&s.train.recipe, &wanted));
    char *json = jobspec_to_json(&s);
    assert_int_equal(jobspec_parse(&again, json, strlen(json), "job.json", "/x", NULL, 0, &err), 0);
    assert_true(recipe_equal(&again.train.recipe, &wanted));
    jobspec_fini(&s);
    jobspec_fini(&again);
    free(json);
}

/* What is wrong is refused at its place, with what is allowed. */
static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *recipe, *message;
    } cases[] = {
        {"  recipe: {dy_tile: 64x64}\n", "job.yaml:7:21: key 'train.recipe.dy_tile': 64x64 is not "
                                         "one of them (allowed: 1x128, 128x128)"},
        {"  recipe: {combine: fp8}\n", "job.yaml:7:21: key 'train.recipe.combine': fp8 is not one "
                                       "of them (allowed: fp32, bf16)"},
        {"  recipe: {fprp: fp8}\n", "'fprop'"},
        {"  recipe: fp8\n", "job.yaml:7:11: key 'train.recipe'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct jobspec s;
        struct err err = {0};
        assert_int_equal(parse(&s, "fp8", cases[i].recipe, &err), ERR_INVALID);
        if (strstr(err.text, cases[i].message) == NULL) {
            fail_msg("%s", err.text);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_one_key),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
