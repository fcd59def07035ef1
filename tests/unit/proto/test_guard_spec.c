/* train.guard in the job file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/buf.h"
#include "proto/jobspec.h"

static int parse(struct jobspec *spec, const char *guard, struct err *err)
{
    char yaml[1000];
    snprintf(
        yaml, sizeof yaml,
        "name: a\ntrain:\n  model: m.json\n  data: {train: d}\n  global_batch: 1\n  steps: 1\n%s",
        guard);
    return jobspec_parse(spec, yaml, strlen(yaml), "job.yaml", "/", NULL, 0, err);
}

static void test_defaults_and_text(void **state)
{
    (void)state;
    struct jobspec a = {0};
    struct jobspec b = {0};
    assert_int_equal(parse(&a, "", NULL), 0);
    const struct guard_spec *g = &a.train.guard;
    assert_true(g->enabled && g->window == 100 && g->mad == 6 && g->margin == 0.5);
    assert_true(g->patience == 20 && g->factor == 5 && g->rollback == 100 && g->skip == 300);
    assert_true(g->lr_factor == 0.7 && g->lr_steps == 500 && g->forget == 1000);
    jobspec_fini(&a);
    assert_int_equal(parse(&a, "  guard: {enabled: false, skip: 7, lr_factor: 0.25}\n", NULL), 0);
    assert_true(!g->enabled && g->skip == 7 && g->lr_factor == 0.25 && g->window == 100);
    char *json = jobspec_to_json(&a);
    assert_int_equal(jobspec_parse(&b, json, strlen(json), "again", "/", NULL, 0, NULL), 0);
    const struct guard_spec *h = &b.train.guard;
    assert_true(!h->enabled && h->skip == 7 && h->lr_factor == 0.25 && h->window == 100);
    assert_true(h->settle == g->settle && h->grad_limit == g->grad_limit && h->mad == g->mad);
    free(json);
    jobspec_fini(&a);
    jobspec_fini(&b);
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"window: 0",      "window: 501", "settle: 101",
                                      "mad: -1",        "skip: -1",    "lr_factor: 0",
                                      "lr_factor: 1.1", "patience: 0", "rollback: 0",
                                      "enabled: maybe", "widow: 3",    "compare_every: -1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[80];
        struct jobspec spec = {0};
        struct err err = {0};
        snprintf(text, sizeof text, "  guard: {%s}\n", bad[i]);
        assert_int_not_equal(parse(&spec, text, &err), 0);
        assert_non_null(strstr(err.text, "job.yaml:7:"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_and_text),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
