#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/mem.h"
#include "proto/jobspec.h"
#include "tests/unit/random.h"

static char *random_text(size_t max)
{
    static const char *const pieces[] = {"a",
                                         "Z",
                                         "0",
                                         " ",
                                         "  ",
                                         "'",
                                         "\"",
                                         "\\",
                                         "\n",
                                         "\t",
                                         "#",
                                         ": ",
                                         "- ",
                                         "{",
                                         "}",
                                         "[",
                                         "]",
                                         ",",
                                         "&",
                                         "*",
                                         "!",
                                         "|",
                                         ">",
                                         "%",
                                         "@",
                                         "`",
                                         "~",
                                         "null",
                                         "true",
                                         "\x01",
                                         "\x1f",
                                         "\x7f",
                                         "\xc2\x85",
                                         "\xc2\x80",
                                         "\xc3\xa4",
                                         "\xe2\x82\xac",
                                         "\xe2\x80\xa8",
                                         "\xef\xbb\xbf",
                                         "\xef\xbf\xbe",
                                         "\xef\xbf\xbf",
                                         "\xf0\x9f\x98\x80",
                                         "\r"};
    struct buf out = {0};
    for (uint64_t n = 1 + random_below(max); n > 0; n--) {
        buf_append_str(&out, pieces[random_below(sizeof pieces / sizeof pieces[0])]);
    }
    buf_cstr(&out);
    return (char *)out.data;
}

static char *random_path(const char *what)
{
    char *text = random_text(8);
    for (char *p = text; *p != 0; p++) {
        *p = *p == '\n' || *p == '\r' ? '_' : *p;
    }
    char *path = mem_printf("/%s/%s", what, text);
    free(text);
    return path;
}

static double random_real(double low, double high)
{
    return low + (high - low) * ((double)(random_next() >> 11) / 9007199254740992.0);
}

static void random_data(struct data_spec *d)
{
    d->source_count = 1 + (uint32_t)random_below(3);
    d->sources = mem_alloc_array(d->source_count, sizeof *d->sources);
    for (uint32_t i = 0; i < d->source_count; i++) {
        d->sources[i].prefix = random_path("data");
        d->sources[i].weight = d->source_count == 1 ? 1 : random_real(0.001, 1000);
    }
    d->valid = random_one_in(2) ? random_path("valid") : NULL;
    d->packing = random_one_in(2) ? PACKING_DOCUMENTS : PACKING_STREAM;
    if (d->packing == PACKING_DOCUMENTS && random_one_in(2)) {
        d->fim = (struct fim_spec){random_real(0, 1), 10 + (uint32_t)random_below(1000), 7, 9};
    }
    d->skip_count = (uint32_t)random_below(4);
    d->skips = mem_alloc_array(d->skip_count + 1, sizeof *d->skips);
    for (uint32_t i = 0; i < d->skip_count; i++) {
        d->skips[i] = (struct data_skip){random_below(1000000), 1 + random_below(1000)};
    }
}

static void random_train(struct jobspec *s)
{
    struct train_spec *t = &s->train;
    uint32_t ways[] = {1, 2, 4};
    s->has_train = true;
    s->gpus_per_node = 4;
    t->model = random_path("model");
    random_data(&t->data);
    t->init_from = random_one_in(2) ? random_path("checkpoint") : NULL;
    if (random_one_in(2)) {
        t->rope = (struct rope_scaling){true,
                                        random_real(1, 1000),
                                        random_real(2, 100),
                                        1.5,
                                        1,
                                        0,
                                        (uint32_t)random_below(2) * 4096};
    }
    t->sequence_length = 1 + (uint32_t)random_below(100000);
    t->global_batch = 1 + (uint32_t)random_below(100000);
    t->micro_batch = 1 + (uint32_t)random_below(t->global_batch);
    t->steps = 1 + random_below(1000000);
    t->tokens = t->steps * t->global_batch * t->sequence_length;
    t->precision = (enum precision)random_below(3);
    t->backend = (enum backend)random_below(2);
    t->pipeline = ways[random_below(2)];
    t->expert = ways[random_below(2)];
    t->pipeline_kind = (enum pipeline_kind)random_below(2);
    t->zero = (uint32_t)random_below(2);
    t->optimizer.lr = random_real(1e-9, 1);
    t->optimizer.lr_min = random_real(0, t->optimizer.lr);
    t->optimizer.warmup_steps = random_below(1000000);
    t->optimizer.constant_steps = random_below(1000000);
    t->optimizer.beta1 = random_real(0, 0.9999);
    t->optimizer.beta2 = random_real(0, 0.9999);
    t->optimizer.eps = random_real(1e-20, 1e-5);
    t->optimizer.weight_decay = random_real(0, 1);
    t->optimizer.grad_clip = random_real(0, 10);
    t->guard = guard_spec_default();
    t->guard.enabled = random_one_in(2);
    t->guard.factor = random_real(0, 10);
    t->guard.skip = (uint32_t)random_below(1000);
    t->guard.compare_every = (uint32_t)random_below(1000);
    t->fault.noise_at = random_below(1000);
    t->fault.noise_sequences = random_below(1000);
    t->fault.inf_step = random_below(1000);
    t->fault.nan_rank = (uint32_t)random_below(1000);
    t->fault.attempts = random_below(3);
    t->bias_update_speed = random_real(0, 1);
    t->balance_loss = random_real(0, 1);
    t->mtp_lambda = random_real(0, 1);
    t->init_std = random_real(1e-6, 1);
    t->seed = random_next();
    t->valid_every = t->data.valid != NULL ? random_below(1000) : 0;
    t->valid_batches = 1 + (uint32_t)random_below(1000);
}

static struct jobspec_time random_time(uint64_t offset)
{
    struct jobspec_time none = {0};
    switch (random_below(3)) {
    case 0:
        return (struct jobspec_time){.at_ms =
                                         (int64_t)(offset + 1 + random_below(200000000)) * 1000};
    case 1:
        return (struct jobspec_time){.in_ms = offset + 1 + random_below(1000000000)};
    default:
        return none;
    }
}

static void random_when(struct jobspec *s)
{
    s->min_runtime_ms = random_one_in(2) ? UINT64_MAX : random_below(1000000);
    s->not_before = random_time(0);
    s->deadline = random_time(1000000000);
    s->preemptible = (enum by_policy)random_below(3);
    s->hold = random_one_in(2);
    s->singleton = random_one_in(2);
    s->placement = (enum placement)random_below(4);
    s->array_count = random_below(20);
    s->array = mem_alloc_array(s->array_count, sizeof *s->array);
    uint32_t index = (uint32_t)random_below(4);
    for (size_t i = 0; i < s->array_count; i++) {
        s->array[i] = index;
        index += 1 + (random_one_in(4) ? (uint32_t)random_below(5) : 0);
    }
    s->array_limit = s->array_count > 0 ? (uint32_t)random_below(5) : 0;
    s->dependency_count = random_below(9);
    s->dependencies = mem_alloc_array(s->dependency_count, sizeof *s->dependencies);
    for (size_t i = 0; i < s->dependency_count; i++) {
        s->dependencies[i] = (struct dependency){(enum dependency_kind)random_below(4), 1 + 3 * i};
    }
}

static void random_spec(struct jobspec *s)
{
    static const char *const stages[] = {"pretrain", "context-extension", "post-training", "eval",
                                         "other"};
    *s = (struct jobspec){0};
    s->name = mem_printf("job-%llu", (unsigned long long)random_below(1000000));
    s->account = mem_strdup(random_one_in(2) ? "Research.1" : "default");
    s->stage = mem_strdup(stages[random_below(5)]);
    s->queue = mem_strdup("default");
    s->priority = (int64_t)random_below(2000001) - 1000000;
    s->nodes_min = 1 + (uint32_t)random_below(100);
    s->nodes_max = s->nodes_min + (uint32_t)random_below(3);
    s->restart_max = (uint32_t)random_below(100);
    s->time_limit_ms = random_one_in(2) ? random_below(100000000000) : 0;
    s->checkpoint.keep = 1 + (uint32_t)random_below(9);
    s->checkpoint.dir = random_one_in(2) ? random_path("ckpt") : NULL;
    switch (random_below(3)) {
    case 0:
        s->checkpoint.every_steps = 1 + random_below(100000);
        break;
    case 1:
        s->checkpoint.every_ms = 1000 + random_below(100000000);
        break;
    default:
        break;
    }
    if (random_one_in(2)) {
        random_train(s);
    } else {
        s->gpus_per_node = (uint32_t)random_below(65);
        s->command_count = 1 + random_below(6);
        s->command = mem_alloc_array(s->command_count, sizeof(char *));
        for (size_t i = 0; i < s->command_count; i++) {
            s->command[i] = i > 0 && random_one_in(8) ? mem_strdup("")
                                                      : random_text(random_one_in(20) ? 3000 : 12);
        }
    }
    random_when(s);
    s->env_count = random_below(4);
    s->env = mem_alloc_array(s->env_count, sizeof(char *));
    for (size_t i = 0; i < s->env_count; i++) {
        char *value = random_text(12);
        s->env[i] = mem_printf("VAR_%zu=%s", i, random_one_in(8) ? "" : value);
        free(value);
    }
}

static void assert_lists_equal(char **a, size_t a_count, char **b, size_t b_count)
{
    assert_int_equal(a_count, b_count);
    for (size_t i = 0; i < a_count; i++) {
        assert_string_equal(a[i], b[i]);
    }
}

static void assert_texts_equal(const char *a, const char *b)
{
    assert_true((a == NULL) == (b == NULL));
    assert_string_equal(a != NULL ? a : "", b != NULL ? b : "");
}

static void assert_data_equal(const struct data_spec *a, const struct data_spec *b)
{
    assert_int_equal(a->source_count, b->source_count);
    for (uint32_t i = 0; i < a->source_count; i++) {
        assert_texts_equal(a->sources[i].prefix, b->sources[i].prefix);
        assert_true(a->sources[i].weight == b->sources[i].weight);
    }
    assert_texts_equal(a->valid, b->valid);
    assert_int_equal(a->packing, b->packing);
    assert_true(a->fim.rate == b->fim.rate && a->fim.begin == b->fim.begin);
    assert_true(a->fim.hole == b->fim.hole && a->fim.end == b->fim.end);
    assert_int_equal(a->skip_count, b->skip_count);
    for (uint32_t i = 0; i < a->skip_count; i++) {
        assert_int_equal(a->skips[i].first, b->skips[i].first);
        assert_int_equal(a->skips[i].count, b->skips[i].count);
    }
}

/* All scalars of two specs at once: pointers are blanked and the bytes compared. */
static void assert_specs_equal(const struct jobspec *a, const struct jobspec *b)
{
    assert_texts_equal(a->name, b->name);
    assert_texts_equal(a->account, b->account);
    assert_texts_equal(a->stage, b->stage);
    assert_texts_equal(a->queue, b->queue);
    assert_texts_equal(a->train.model, b->train.model);
    assert_data_equal(&a->train.data, &b->train.data);
    assert_texts_equal(a->train.init_from, b->train.init_from);
    assert_memory_equal(&a->train.rope, &b->train.rope, sizeof a->train.rope);
    assert_int_equal(a->train.guard.enabled, b->train.guard.enabled);
    assert_true(a->train.guard.factor == b->train.guard.factor);
    assert_int_equal(a->train.guard.skip, b->train.guard.skip);
    assert_int_equal(a->train.guard.compare_every, b->train.guard.compare_every);
    assert_memory_equal(&a->train.fault, &b->train.fault, sizeof a->train.fault);
    assert_texts_equal(a->checkpoint.dir, b->checkpoint.dir);
    assert_lists_equal(a->command, a->command_count, b->command, b->command_count);
    assert_lists_equal(a->env, a->env_count, b->env, b->env_count);
    assert_int_equal(a->priority, b->priority);
    assert_int_equal(a->nodes_min, b->nodes_min);
    assert_int_equal(a->nodes_max, b->nodes_max);
    assert_int_equal(a->gpus_per_node, b->gpus_per_node);
    assert_int_equal(a->has_train, b->has_train);
    assert_int_equal(a->checkpoint.every_steps, b->checkpoint.every_steps);
    assert_int_equal(a->checkpoint.every_ms, b->checkpoint.every_ms);
    assert_int_equal(a->checkpoint.keep, b->checkpoint.keep);
    assert_int_equal(a->restart_max, b->restart_max);
    assert_int_equal(a->time_limit_ms, b->time_limit_ms);
    assert_int_equal(a->array_count, b->array_count);
    for (size_t i = 0; i < a->array_count; i++) {
        assert_int_equal(a->array[i], b->array[i]);
    }
    assert_int_equal(a->array_limit, b->array_limit);
    assert_int_equal(a->dependency_count, b->dependency_count);
    for (size_t i = 0; i < a->dependency_count; i++) {
        assert_int_equal(a->dependencies[i].kind, b->dependencies[i].kind);
        assert_int_equal(a->dependencies[i].job, b->dependencies[i].job);
    }
    assert_int_equal(a->singleton, b->singleton);
    assert_int_equal(a->not_before.at_ms, b->not_before.at_ms);
    assert_int_equal(a->not_before.in_ms, b->not_before.in_ms);
    assert_int_equal(a->deadline.at_ms, b->deadline.at_ms);
    assert_int_equal(a->deadline.in_ms, b->deadline.in_ms);
    assert_int_equal(a->preemptible, b->preemptible);
    assert_int_equal(a->min_runtime_ms, b->min_runtime_ms);
    assert_int_equal(a->spares, b->spares);
    assert_int_equal(a->hold, b->hold);
    assert_int_equal(a->placement, b->placement);
    assert_int_equal(a->train.sequence_length, b->train.sequence_length);
    assert_int_equal(a->train.global_batch, b->train.global_batch);
    assert_int_equal(a->train.micro_batch, b->train.micro_batch);
    assert_int_equal(a->train.steps, b->train.steps);
    assert_int_equal(a->train.tokens, b->train.tokens);
    assert_int_equal(a->train.precision, b->train.precision);
    assert_int_equal(a->train.backend, b->train.backend);
    assert_int_equal(a->train.pipeline, b->train.pipeline);
    assert_int_equal(a->train.expert, b->train.expert);
    assert_int_equal(a->train.pipeline_kind, b->train.pipeline_kind);
    assert_int_equal(a->train.zero, b->train.zero);
    assert_memory_equal(&a->train.optimizer, &b->train.optimizer, sizeof a->train.optimizer);
    assert_true(a->train.bias_update_speed == b->train.bias_update_speed);
    assert_true(a->train.balance_loss == b->train.balance_loss);
    assert_true(a->train.mtp_lambda == b->train.mtp_lambda);
    assert_true(a->train.init_std == b->train.init_std);
    assert_int_equal(a->train.seed, b->train.seed);
    assert_int_equal(a->train.valid_every, b->train.valid_every);
    assert_int_equal(a->train.valid_batches, b->train.valid_batches);
}

/* The canonical JSON of any spec parses back to an equal one, and is the same text again. */
static void test_round_trip(void **state)
{
    (void)state;
    random_start("jobspec round trip");
    for (int i = 0; i < 3000; i++) {
        struct jobspec spec;
        struct jobspec again;
        struct err err = {0};
        random_spec(&spec);
        char *json = jobspec_to_json(&spec);
        int rc = jobspec_parse(&again, json, strlen(json), "canonical", "/", NULL, 0, &err);
        assert_string_equal(err.text, "");
        assert_int_equal(rc, 0);
        assert_specs_equal(&spec, &again);
        char *json_again = jobspec_to_json(&again);
        assert_string_equal(json, json_again);
        free(json);
        free(json_again);
        jobspec_fini(&spec);
        jobspec_fini(&again);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
