/* train.schedule in the job file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/jobspec.h"

static int parse(struct jobspec *spec, const char *schedule, struct err *err)
{
    char yaml[2000];
    snprintf(yaml, sizeof yaml,
             "name: a\n"
             "train:\n"
             "  model: m.json\n"
             "  data: {train: d}\n"
             "  global_batch: 40\n"
             "  sequence_length: 64\n"
             "  tokens: 1.48M\n"
             "  schedule: %s\n",
             schedule);
    return jobspec_parse(spec, yaml, strlen(yaml), "job.yaml", "/x", NULL, 0, err);
}

/* What is read comes out of the canonical JSON and in again as the same. */
static void test_round_trip(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{}",
        "deepseek-v3",
        "{preset: deepseek-v3, batch: {from: 40, until: 1}}",
        "{preset: deepseek-v3, constant_until: 1M, mtp_lambda_then: 0}",
        "{constant_until: 100K, decay_until: 1M, tails: [{lr: 1e-5}]}",
        "{decay_until: 1M, tails: [{until: 1.1M, lr: 1e-5}, {until: 9M, lr: 2e-6}]}",
        "{bias_update_until: 5, mtp_lambda_until: 7, mtp_lambda_then: 0.25}",
        "{batch: {from: 10, until: 300K, increment: 5}}",
        "{context: [{until: 10K, length: 8}, {until: 20K, length: 32}]}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct jobspec a, b;
        struct err err = {0};
        if (parse(&a, texts[i], &err) != 0) {
            fail_msg("%s: %s", texts[i], err.text);
        }
        char *json = jobspec_to_json(&a);
        if (jobspec_parse(&b, json, strlen(json), "job.json", "/x", NULL, 0, &err) != 0) {
            fail_msg("%s: %s", json, err.text);
        }
        char *again = jobspec_to_json(&b);
        assert_string_equal(json, again);
        assert_int_equal(a.train.steps, b.train.steps);
        assert_int_equal(a.train.tokens, b.train.tokens);
        free(json), free(again);
        jobspec_fini(&a), jobspec_fini(&b);
    }
}

/* The preset is the published run in shares of this one's tokens; a key beside it goes first. */
static void test_preset(void **state)
{
    (void)state;
    struct jobspec s;
    struct err err = {0};
    assert_int_equal(parse(&s, "{preset: deepseek-v3, bias_update_until: 7}", &err), 0);
    const struct schedule_spec *x = &s.train.plan;
    assert_int_equal(x->constant_until, 1000000);
    assert_int_equal(x->decay_until, 1430000);
    assert_int_equal(x->tails, 2);
    assert_int_equal(x->tail[0].until, 1463300);
    assert_int_equal(x->tail[1].until, 0);
    assert_int_equal(x->bias_update_until, 7);
    assert_int_equal(x->mtp_lambda_until, 1000000);
    assert_int_equal(x->batch.from, 8);
    assert_int_equal(x->batch.increment, 1);
    assert_int_equal(x->batch.until, 46900);
    jobspec_fini(&s);
    /* in steps that the ranks can share */
    const char *const sets[][2] = {{"train.micro_batch=4", "train.global_batch=80"},
                                   {"train.micro_batch=3", "train.global_batch=80"}};
    const uint32_t wanted[][2] = {{16, 4}, {0, 0}};
    for (size_t i = 0; i < 2; i++) {
        const char *yaml = "{name: a, train: {model: m, data: {train: d}, tokens: 1M, "
                           "global_batch: 1, schedule: deepseek-v3}}";
        assert_int_equal(jobspec_parse(&s, yaml, strlen(yaml), "j", "/x", sets[i], 2, &err), 0);
        assert_int_equal(s.train.plan.batch.from, wanted[i][0]);
        assert_int_equal(s.train.plan.batch.increment, wanted[i][1]);
        jobspec_fini(&s);
    }
}

/* What is wrong is refused at its place, with what is allowed. */
static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *schedule, *message;
    } cases[] = {
        {"llama", "job.yaml:8:13: key 'train.schedule': llama is not one of them (allowed: "
                  "deepseek-v3)"},
        {"{constant_til: 5}", "'constant_until'"},
        {"{constant_until: 5M, decay_until: 4M}",
         "job.yaml:8:47: key 'train.schedule.decay_until': is before constant_until, 5000000"},
        {"{tails: [{lr: 1e-5}]}", "needs decay_until"},
        {"{decay_until: 1M, tails: [{lr: 1e-5}, {lr: 1e-6}]}", "'until' is missing"},
        {"{decay_until: 1M, tails: [{until: 1M, lr: 1e-5}]}", "ends before decay_until"},
        {"{decay_until: 1M, tails: []}", "a list of 1 to 16 phases"},
        {"{decay_until: 1M, tails: [{until: 2M, lr: 1}, {until: 2M, lr: 1}]}",
         "is not after the phase before"},
        {"{mtp_lambda_then: 0.1}", "needs mtp_lambda_until"},
        {"{mtp_lambda_until: 10}", "needs mtp_lambda_then"},
        {"{batch: {from: 50, until: 1M}}", "50 is over global_batch 40"},
        {"{batch: {from: 10, until: 1M, increment: 7}}", "divides 30"},
        {"{batch: {from: 10}}", "until"},
        {"{context: [{until: 10, length: 24}]}",
         "job.yaml:8:44: key 'train.schedule.context[0].length': 24 does not divide "
         "sequence_length 64"},
        {"{context: [{until: 10, length: 128}]}", "128 does not divide"},
        {"{context: {until: 10, length: 8}}", "a list of 1 to 16 phases"},
        {"{bias_update_until: 1.5}", "bias_update_until"},
        {"5", "5 is not one of them"},
        {"[1]", "schedule"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct jobspec s;
        struct err err = {0};
        assert_int_equal(parse(&s, cases[i].schedule, &err), ERR_INVALID);
        if (strstr(err.text, cases[i].message) == NULL) {
            fail_msg("%s: %s", cases[i].schedule, err.text);
        }
    }
}

/* Groups without weight decay: a list of names. */
static void test_no_decay(void **state)
{
    (void)state;
    struct jobspec s;
    struct err err = {0};
    const char *yaml = "{name: a, train: {model: m, data: {train: d}, steps: 1, global_batch: 1, "
                       "optimizer: {no_decay: [embedding, norms]}}}";
    assert_int_equal(jobspec_parse(&s, yaml, strlen(yaml), "j", "/x", NULL, 0, &err), 0);
    assert_int_equal(s.train.optimizer.no_decay, DECAY_EMBEDDING | DECAY_NORMS);
    char *json = jobspec_to_json(&s);
    assert_non_null(strstr(json, "\"no_decay\": [\"norms\", \"embedding\"]"));
    free(json);
    jobspec_fini(&s);
    const char *set[] = {"train.optimizer.no_decay=[bias]"};
    assert_int_equal(jobspec_parse(&s, yaml, strlen(yaml), "j", "/x", set, 1, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "bias is not one of them (allowed: norms, embedding"));
    set[0] = "train.optimizer.no_decay=[]";
    assert_int_equal(jobspec_parse(&s, yaml, strlen(yaml), "j", "/x", set, 1, &err), 0);
    assert_int_equal(s.train.optimizer.no_decay, 0);
    jobspec_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_preset),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_no_decay)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
