#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "proto/jobspec.h"
#include "proto/model_config.h"

static const char contract[] = "name: tiny-moe\n"
                               "account: research\n"
                               "stage: pretrain            # a comment\n"
                               "queue: default\n"
                               "priority: 100\n"
                               "nodes: 2\n"
                               "gpus_per_node: 2\n"
                               "train:\n"
                               "  model: models/tiny.json\n"
                               "  data: {train: data/corpus, valid: data/corpus-valid}\n"
                               "  sequence_length: 256\n"
                               "  global_batch: 16\n"
                               "  steps: 200\n"
                               "  precision: fp8\n"
                               "  parallel: {pipeline: 1, expert: 2}\n"
                               "  optimizer: {lr: 2.2e-4}\n"
                               "  seed: 1\n"
                               "checkpoint: {every: 50, keep: 3}\n"
                               "restart: {max: 3}\n"
                               "time_limit: 30d\n";

static int parse_with(struct jobspec *spec, const char *yaml, const char *const *set, size_t count,
                      struct err *err)
{
    *err = (struct err){0};
    return jobspec_parse(spec, yaml, strlen(yaml), "job.yaml", "/home/u", set, count, err);
}

static int parse(struct jobspec *spec, const char *yaml, struct err *err)
{
    return parse_with(spec, yaml, NULL, 0, err);
}

/* The job of the contract reads as written, with the documented defaults for what it does not say.
 */
static void test_contract(void **state)
{
    (void)state;
    struct jobspec s;
    struct err err;
    parse(&s, contract, &err);
    assert_string_equal(err.text, "");
    assert_string_equal(s.name, "tiny-moe");
    assert_string_equal(s.account, "research");
    assert_int_equal(s.priority, 100);
    assert_int_equal(s.nodes_min, 2);
    assert_int_equal(s.nodes_max, 2);
    assert_int_equal(s.gpus_per_node, 2);
    assert_int_equal(jobspec_world_size(&s, 2), 4);
    assert_true(s.has_train);
    assert_string_equal(s.train.model, "/home/u/models/tiny.json");
    assert_string_equal(s.train.data.valid, "/home/u/data/corpus-valid");
    assert_null(s.train.init_from);
    assert_int_equal(s.train.steps, 200);
    assert_int_equal(s.train.tokens, 200 * 16 * 256);
    assert_int_equal(s.train.precision, PRECISION_FP8);
    assert_int_equal(s.train.pipeline, 1);
    assert_int_equal(s.train.expert, 2);
    assert_int_equal(s.train.micro_batch, 1);
    assert_true(s.train.optimizer.lr == 2.2e-4 && s.train.optimizer.lr_min == 2.2e-4 / 10);
    assert_true(s.train.optimizer.beta1 == 0.9 && s.train.optimizer.beta2 == 0.95);
    assert_true(s.train.optimizer.eps == 1e-8 && s.train.optimizer.weight_decay == 0.1);
    assert_true(s.train.optimizer.grad_clip == 1.0 && s.train.bias_update_speed == 0.001);
    assert_true(s.train.balance_loss == 1e-4 && s.train.mtp_lambda == 0.3 &&
                s.train.init_std == 0.006);
    assert_int_equal(s.train.optimizer.warmup_steps, 20);
    assert_int_equal(s.train.optimizer.constant_steps, 0);
    assert_int_equal(s.train.valid_every, 50);
    assert_int_equal(s.train.valid_batches, 4);
    assert_int_equal(s.checkpoint.every_steps, 50);
    assert_int_equal(s.checkpoint.every_ms, 0);
    assert_int_equal(s.checkpoint.keep, 3);
    assert_null(s.checkpoint.dir);
    assert_int_equal(s.restart_max, 3);
    assert_int_equal(s.time_limit_ms, 30ull * 86400000);
    jobspec_fini(&s);
    jobspec_fini(&s);
}

/* The smallest jobs: a list runs as it is, a text by the shell, on one node with one GPU. */
static void test_command(void **state)
{
    (void)state;
    struct jobspec s;
    struct err err;
    parse(&s, "name: a\ncommand: [true]\n", &err);
    assert_string_equal(err.text, "");
    assert_false(s.has_train);
    assert_int_equal(s.command_count, 1);
    assert_string_equal(s.command[0], "true");
    assert_string_equal(s.account, "default");
    assert_string_equal(s.stage, "pretrain");
    assert_int_equal(s.nodes_min * s.gpus_per_node, 1);
    assert_int_equal(s.checkpoint.every_steps + s.checkpoint.every_ms, 0);
    jobspec_fini(&s);
    parse(&s, "name: a\ngpus_per_node: 0\ncommand: echo 'a  b' | wc\nenv: {A: 1, B: 'x y', C: }\n",
          &err);
    assert_string_equal(err.text, "");
    assert_int_equal(s.command_count, 3);
    assert_string_equal(s.command[0], "/bin/sh");
    assert_string_equal(s.command[1], "-c");
    assert_string_equal(s.command[2], "echo 'a  b' | wc");
    assert_int_equal(s.env_count, 3);
    assert_string_equal(s.env[0], "A=1");
    assert_string_equal(s.env[1], "B=x y");
    assert_string_equal(s.env[2], "C=");
    assert_int_equal(jobspec_world_size(&s, 3), 3);
    jobspec_fini(&s);
}

static void with_set(const char *set, const char *expected_error)
{
    struct jobspec s;
    struct err err;
    parse_with(&s, contract, &set, 1, &err);
    assert_string_equal(err.text, expected_error);
    jobspec_fini(&s);
}

/* Overrides change what they name, make maps that are missing, and are named in messages. */
static void test_set(void **state)
{
    (void)state;
    struct jobspec s;
    struct err err;
    static const char *const set[] = {"train.steps=5",
                                      "checkpoint.every=5m",
                                      "checkpoint.dir=ckpt",
                                      "nodes={min: 1, max: 4}",
                                      "env.A=b=c: d",
                                      "env.B=\"quoted\"",
                                      "train.precision=bf16",
                                      "queue=null",
                                      "train.data.valid=null",
                                      "train.optimizer.grad_clip=0",
                                      "train.init_from=weights/v3"};
    parse_with(&s, contract, set, sizeof set / sizeof set[0], &err);
    assert_string_equal(err.text, "");
    assert_int_equal(s.train.steps, 5);
    assert_int_equal(s.checkpoint.every_ms, 300000);
    assert_int_equal(s.checkpoint.every_steps, 0);
    assert_string_equal(s.checkpoint.dir, "/home/u/ckpt");
    assert_int_equal(s.nodes_min, 1);
    assert_int_equal(s.nodes_max, 4);
    assert_string_equal(s.env[0], "A=b=c: d");
    assert_string_equal(s.env[1], "B=quoted");
    assert_int_equal(s.train.precision, PRECISION_BF16);
    assert_string_equal(s.queue, "default");
    assert_null(s.train.data.valid);
    assert_int_equal(s.train.valid_every, 0);
    assert_true(s.train.optimizer.grad_clip == 0);
    assert_string_equal(s.train.init_from, "/home/u/weights/v3");
    jobspec_fini(&s);
    with_set("train.steps=x", "--set train.steps=x: key 'train.steps': 'x' is not a whole number "
                              "(allowed: such as 200, 64K, 1.5e9 or "
                              "14.8T)");
    with_set("train.steps", "--set train.steps: not an override (the form is a.b=value)");
    with_set("=5", "--set =5: not an override (the form is a.b=value)");
    with_set("train..steps=5", "--set train..steps=5: an empty key (the form is a.b=value)");
    with_set("train.=5", "--set train.=5: an empty key (the form is a.b=value)");
    with_set("nodes.min=5", "--set nodes.min=5: what stands before 'min' is not a map");
    with_set("train.steps=[1", "--set train.steps=[1:2:1: not YAML: did not find expected ',' or "
                               "']', while parsing a flow sequence");
}

/* Replaces the line that starts with `key` (after blanks) in the contract's job by `line`; appends
 * when there is none. */
static char *edited(const char *key, const char *line)
{
    struct buf out = {0};
    bool found = false;
    for (const char *p = contract; *p != 0;) {
        size_t len = strcspn(p, "\n") + 1;
        size_t blanks = strspn(p, " ");
        bool here = strncmp(p + blanks, key, strlen(key)) == 0 && p[blanks + strlen(key)] == ':';
        if (here) {
            buf_printf(&out, "%.*s%s\n", (int)blanks, p, line);
        } else {
            buf_append(&out, p, len);
        }
        found = found || here;
        p += len;
    }
    if (!found) {
        buf_printf(&out, "%s\n", line);
    }
    buf_cstr(&out);
    return (char *)out.data;
}

/* What is wrong is refused with file, line, column, key and what is allowed. */
static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *key, *line, *message;
    } cases[] = {
        {"nodes", "nodez: 2",
         "job.yaml:6:1: key 'nodez': unknown, did you mean 'nodes'? (allowed: name, account, "
         "stage, queue, priority, "
         "nodes, gpus_per_node, train, command, env, checkpoint, restart, time_limit, "
         "array, dependencies, not_before, deadline, preemptible, min_runtime, spares, hold, "
         "placement)"},
        {"none", "steps: 5",
         "job.yaml:21:1: key 'steps': unknown, did you mean 'train.steps'? (allowed: name, "
         "account, stage, queue, "
         "priority, nodes, gpus_per_node, train, command, env, checkpoint, restart, time_limit, "
         "array, dependencies, not_before, deadline, preemptible, min_runtime, spares, hold, "
         "placement)"},
        {"nodes", "nodes: 0", "job.yaml:6:8: key 'nodes': 0 is out of range (allowed: 1 to 65536)"},
        {"nodes", "nodes: [2]",
         "job.yaml:6:8: key 'nodes': a list is not a whole number (allowed: 1 to 65536)"},
        {"nodes", "nodes: {min: 3, max: 2}", "job.yaml:6:8: key 'nodes': min 3 is over max 2"},
        {"nodes", "nodes: {min: 3}", "job.yaml:6:8: key 'nodes': 'max' is missing"},
        {"name", "name: Tiny",
         "job.yaml:1:7: key 'name': 'Tiny' is not valid (allowed: a-z 0-9 . _ -, at most 63, first "
         "a letter or digit)"},
        {"name", "name:",
         "job.yaml:1:1: 'name' is missing (allowed: a-z 0-9 . _ -, at most 63, first a letter or "
         "digit)"},
        {"stage", "stage: train",
         "job.yaml:3:8: key 'stage': 'train' is not valid (allowed: pretrain, context-extension, "
         "post-training, "
         "eval, other)"},
        {"priority", "priority: 1.5",
         "job.yaml:5:11: key 'priority': 1.5 is not a whole number (allowed: -1000000 to 1000000)"},
        {"priority", "priority: 'high'",
         "job.yaml:5:11: key 'priority': text in quotes is not a whole number (allowed: -1000000 "
         "to "
         "1000000)"},
        {"gpus_per_node", "gpus_per_node: 65",
         "job.yaml:7:16: key 'gpus_per_node': 65 is out of range (allowed: 0 to 64)"},
        {"gpus_per_node", "gpus_per_node: 0",
         "job.yaml:7:16: key 'gpus_per_node': 0 is for a command (allowed for train: 1 to 64)"},
        {"model", "",
         "job.yaml:10:3: key 'train': 'model' is missing (allowed: path of a Hugging Face "
         "config.json)"},
        {"data", "data: prefix",
         "job.yaml:10:9: key 'train.data': prefix where a map is expected (key: value lines)"},
        {"global_batch", "",
         "job.yaml:9:3: key 'train': 'global_batch' is missing (allowed: sequences a step)"},
        {"steps", "tokens: 14.85",
         "job.yaml:13:11: key 'train.tokens': '14.85' is not a whole number (allowed: such as 200, "
         "64K, 1.5e9 "
         "or 14.8T)"},
        {"steps", "steps: 0",
         "job.yaml:13:10: key 'train.steps': 0 is out of range (allowed: 1 to 1e+15)"},
        {"steps", "seed: 2", "job.yaml:17:3: key 'seed': given twice (first in line 13)"},
        {"steps", "",
         "job.yaml:9:3: key 'train': 'steps' is missing (allowed: steps, or tokens such as 14.8T)"},
        {"seed", "tokens: 5",
         "job.yaml:17:11: key 'train.tokens': given together with steps (allowed: one of the two)"},
        {"precision", "precision: fp4",
         "job.yaml:14:14: key 'train.precision': fp4 is not one of them (allowed: fp32, bf16, "
         "fp8)"},
        {"parallel", "parallel: {expert: 3}",
         "job.yaml:15:13: key 'train.parallel': pipeline 1 x expert 3 does not divide the 4 ranks "
         "of "
         "2 nodes with 2 GPUs (allowed: a product that divides them at every size)"},
        {"optimizer", "optimizer: {lr: .inf}",
         "job.yaml:16:19: key 'train.optimizer.lr': .inf is not a number (allowed: such as 0.1 or "
         "2.2e-4)"},
        {"optimizer", "optimizer: {lr: 1e999}",
         "job.yaml:16:19: key 'train.optimizer.lr': 1e999 is too large for a number"},
        {"optimizer", "optimizer: {lr: 0}",
         "job.yaml:16:19: key 'train.optimizer.lr': 0 is out of range (allowed: 1e-12 to 10)"},
        {"optimizer", "optimizer: {beta1: 1}",
         "job.yaml:16:22: key 'train.optimizer.beta1': 1 is out of range (allowed: 0 to 0.999999)"},
        {"optimizer", "optimizer: {lr_min: 1}",
         "job.yaml:16:23: key 'train.optimizer.lr_min': 1 is over lr (allowed: 0 to 0.00022)"},
        {"optimizer", "micro_batch: 17",
         "job.yaml:16:16: key 'train.micro_batch': 17 is over global_batch 16"},
        {"seed", "seed: 18446744073709551616",
         "job.yaml:17:9: key 'train.seed': 18446744073709551616 is out of range (allowed: 0 to "
         "18446744073709551615)"},
        {"seed", "seed: 010",
         "job.yaml:17:9: key 'train.seed': 010 is not a whole number (allowed: 0 to "
         "18446744073709551615)"},
        {"checkpoint", "checkpoint: {every: 0}",
         "job.yaml:18:21: key 'checkpoint.every': 0 is out of range (allowed: 1 to "
         "1000000000000000)"},
        {"checkpoint", "checkpoint: {every: 10ms}",
         "job.yaml:18:21: key 'checkpoint.every': 10ms is too often (allowed: 1s or more)"},
        {"checkpoint", "checkpoint: {every: often}",
         "job.yaml:18:21: key 'checkpoint.every': often is neither steps nor a duration "
         "(allowed: such as 50, 5m, or auto)"},
        {"checkpoint", "checkpoint: {keep: 0}",
         "job.yaml:18:20: key 'checkpoint.keep': 0 is out of range (allowed: 1 to 100000)"},
        {"restart", "restart: 3",
         "job.yaml:19:10: key 'restart': 3 where a map is expected (key: value lines)"},
        {"time_limit", "time_limit: 5 days",
         "job.yaml:20:13: key 'time_limit': '5 days' is not a duration (allowed: such as 90s, "
         "1500ms, "
         "5m, 1h30m or 30d; a bare number is seconds)"},
        {"time_limit", "command: [true]",
         "job.yaml:20:10: key 'command': given together with train (allowed: one of the two)"},
        {"time_limit", "env: {RANK: 1}",
         "job.yaml:20:13: key 'env.RANK': set by the worker, not by a job"},
        {"time_limit", "env: {DS_X: 1}",
         "job.yaml:20:13: key 'env.DS_X': set by the worker, not by a job"},
        {"time_limit", "env: {1A: 1}",
         "job.yaml:20:11: key 'env.1A': not a name of an environment variable (allowed: letters, "
         "digits and "
         "_, first no digit)"},
        {"time_limit", "env: [A]",
         "job.yaml:20:6: key 'env': a map of at most 512 entries is expected (allowed: NAME: value "
         "lines)"},
        {"seed", "steps: 3", "job.yaml:17:3: key 'steps': given twice (first in line 13)"},
        {"time_limit", "time_limit: !x 3", "job.yaml:20:13: tags (!name) are not supported"},
        {"time_limit", "time_limit: [3",
         "job.yaml:21:1: not YAML: did not find expected ',' or ']', while parsing a flow "
         "sequence"},
        {"time_limit", "---\nname: x", "job.yaml:20:1: a second document; only one is allowed"},
        {"time_limit", "\tname: x",
         "job.yaml:20:1: not YAML: found character that cannot start any token, while scanning for "
         "the next "
         "token"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct jobspec s;
        struct err err;
        char *yaml = edited(cases[i].key, cases[i].line);
        int rc = parse(&s, yaml, &err);
        assert_string_equal(err.text, cases[i].message);
        assert_int_equal(rc, ERR_INVALID);
        assert_null(s.name);
        free(yaml);
    }
}

/* Refused whatever else the file says. */
static void test_refused_whole(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *message;
    } cases[] = {
        {"", "job.yaml:1:1: 'name' is missing (allowed: a-z 0-9 . _ -, at most 63, first a letter "
             "or digit)"},
        {"# nothing\n", "job.yaml:1:1: 'name' is missing (allowed: a-z 0-9 . _ -, at most 63, "
                        "first a letter or digit)"},
        {"text", "job.yaml:1:1: text where a map is expected (key: value lines)"},
        {"- a", "job.yaml:1:1: a list where a map is expected (key: value lines)"},
        {"name: a", "job.yaml:1:1: nothing to run: 'train' and 'command' are both missing"},
        {"name: a\ncommand: []", "job.yaml:2:10: key 'command': no program (allowed: a list of 1 "
                                 "to 4096 words, or one text for /bin/sh -c)"},
        {"name: a\ncommand: ['']",
         "job.yaml:2:11: key 'command[0]': a word is expected: the program"},
        {"name: a\ncommand: [a, [b]]", "job.yaml:2:14: key 'command[1]': a word is expected"},
        {"name: a\ncommand: &x [a, *x]", "job.yaml:2:14: nested too deep (at most 16 levels)"},
        {"name: a\ncommand: \"a\\0b\"", "job.yaml:2:10: text with a NUL byte"},
        {"name: a\ncommand: [a\xff]",
         "job.yaml: byte 19: invalid leading UTF-8 octet (the text must be UTF-8)"},
        {"? [a]\n: b", "job.yaml:1:3: a key must be text"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct jobspec s;
        struct err err;
        assert_int_equal(parse(&s, cases[i].yaml, &err), ERR_INVALID);
        assert_string_equal(err.text, cases[i].message);
    }
    struct jobspec s;
    struct err err;
    assert_int_equal(jobspec_parse(&s, "name: a", 7, "job.yaml", "relative", NULL, 0, &err),
                     ERR_INVALID);
}

/* Bombs of aliases, of size and of depth are refused quickly. */
static void test_bombs(void **state)
{
    (void)state;
    struct jobspec s;
    struct err err;
    struct buf text = {0};
    buf_append_str(&text, "name: a\nl0: &l0 [x, x, x, x, x, x, x, x, x, x]\n");
    for (int i = 1; i < 9; i++) {
        buf_printf(&text, "l%d: &l%d [", i, i);
        for (int k = 0; k < 10; k++) {
            buf_printf(&text, "%s*l%d", k > 0 ? ", " : "", i - 1);
        }
        buf_append_str(&text, "]\n");
    }
    assert_int_equal(parse(&s, buf_cstr(&text), &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "too many values"));
    buf_reset(&text);
    buf_append_str(&text, "name: a\ncommand: [&x '");
    for (int i = 0; i < 3000; i++) {
        buf_append_str(&text, "0123456789");
    }
    buf_append_str(&text, "'");
    for (int i = 0; i < 3000; i++) {
        buf_append_str(&text, ", *x");
    }
    buf_append_str(&text, "]\n");
    assert_int_equal(parse(&s, buf_cstr(&text), &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "too much text once aliases are expanded"));
    buf_reset(&text);
    buf_append_str(&text, "name: a\ncommand: ");
    for (int i = 0; i < 100000; i++) {
        buf_append_str(&text, "[");
    }
    assert_int_equal(parse(&s, buf_cstr(&text), &err), ERR_INVALID);
    buf_reset(&text);
    for (int i = 0; i < 100000; i++) {
        buf_append_str(&text, "0123456789\n ");
    }
    assert_int_equal(parse(&s, buf_cstr(&text), &err), ERR_INVALID);
    assert_string_equal(err.text, "job.yaml: over 1 MiB of text");
    buf_reset(&text);
    buf_append_str(&text, "name: a\ncommand: '");
    for (int i = 0; i < 14000; i++) {
        buf_append_str(&text, "0123456789");
    }
    buf_append_str(&text, "'\n");
    assert_int_equal(parse(&s, buf_cstr(&text), &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "command and env are over 128 KiB"));
    buf_fini(&text);
}

/* Lengths whose products do not fit are refused, not wrapped. */
static void test_overflow(void **state)
{
    (void)state;
    static const char *const set[] = {"train.sequence_length=16777216",
                                      "train.global_batch=16777216", "train.steps=1e15"};
    struct jobspec s;
    struct err err;
    assert_int_equal(parse_with(&s, contract, set, 3, &err), ERR_INVALID);
    assert_string_equal(err.text, "--set train.steps=1e15: key 'train.steps': too long a run: "
                                  "steps x global_batch x sequence_length is "
                                  "over 10^18 tokens");
    static const char *const tokens[] = {"train.steps=null", "train.tokens=14.8T",
                                         "train.global_batch=15360", "train.sequence_length=4096"};
    assert_int_equal(parse_with(&s, contract, tokens, 4, &err), 0);
    assert_int_equal(s.train.steps, 235240); /* ceil(14.8e12 / (15360 * 4096)) */
    assert_int_equal(s.train.optimizer.warmup_steps, 2000);
    jobspec_fini(&s);
}

static void check_model(const char *set, const char *model_json, const char *expected)
{
    struct jobspec s;
    struct model_config m;
    struct err err;
    assert_int_equal(parse_with(&s, contract, &set, 1, &err), 0);
    assert_int_equal(model_config_parse(&m, model_json, strlen(model_json), "m.json", &err), 0);
    err.text[0] = 0;
    int rc = jobspec_check_model(&s, &m, "job.yaml", &err);
    assert_string_equal(err.text, expected);
    assert_int_equal(rc, expected[0] == 0 ? 0 : ERR_INVALID);
    jobspec_fini(&s);
}

/* A stage after another job: waits for it unless the job file says itself how, and comes back from
 * the canonical form. */
static void test_init_job(void **state)
{
    (void)state;
    struct jobspec s;
    struct err err;
    const char *set[] = {"train.init_from=job:12", "dependencies={afterany: 9}"};
    assert_int_equal(parse_with(&s, contract, set, 2, &err), 0);
    assert_null(s.train.init_from);
    assert_int_equal(s.train.init_job, 12);
    assert_int_equal(s.dependency_count, 2);
    assert_int_equal(s.dependencies[1].job, 12);
    assert_int_equal(s.dependencies[1].kind, DEPENDENCY_AFTER_OK);
    char *json = jobspec_to_json(&s);
    jobspec_fini(&s);
    assert_int_equal(parse(&s, json, &err), 0);
    assert_int_equal(s.train.init_job, 12);
    assert_int_equal(s.dependency_count, 2);
    free(json);
    jobspec_fini(&s);
    set[1] = "dependencies={after: 12}";
    assert_int_equal(parse_with(&s, contract, set, 2, &err), 0);
    assert_int_equal(s.dependency_count, 1);
    assert_int_equal(s.dependencies[0].kind, DEPENDENCY_AFTER);
    jobspec_fini(&s);
    with_set("train.init_from=job:0",
             "--set train.init_from=job:0: key 'train.init_from': 0 is out of range (allowed: 1 to "
             "9223372036854775807)");
}

/* train.rope_scaling takes the place of the model file's and reaches factor times the original
 * positions; what is left out is as in config.json. */
static void test_rope_scaling(void **state)
{
    (void)state;
    static const struct {
        const char *set, *model;
        uint32_t original, positions;
        double factor;
    } cases[] = {
        {"train.rope_scaling={type: yarn, factor: 40}", "{\"max_position_embeddings\": 512}", 512,
         20480, 40},
        {"train.rope_scaling={rope_type: yarn, factor: 2, original_max_position_embeddings: 300}",
         "{\"max_position_embeddings\": 4096}", 300, 4096, 2},
        {"train.rope_scaling={type: yarn, factor: 4}",
         "{\"max_position_embeddings\": 600, \"rope_scaling\": {\"type\": \"yarn\", "
         "\"factor\": 2, \"original_max_position_embeddings\": 300}}",
         300, 1200, 4},
        {"train.rope_scaling={type: yarn, factor: 1e6}", "{\"max_position_embeddings\": 1000000}",
         1000000, 1u << 30, 1e6},
        {"train.seed=1", "{\"max_position_embeddings\": 512}", 0, 512, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct jobspec s;
        struct model_config m;
        struct err err;
        assert_int_equal(parse_with(&s, contract, &cases[i].set, 1, &err), 0);
        char *json = jobspec_to_json(&s);
        jobspec_fini(&s);
        assert_int_equal(parse(&s, json, &err), 0);
        free(json);
        assert_int_equal(
            jobspec_model(&s, cases[i].model, strlen(cases[i].model), "job.yaml", &m, &err), 0);
        assert_int_equal(m.rope.yarn, cases[i].factor > 0);
        assert_true(m.rope.factor == cases[i].factor);
        assert_int_equal(m.rope.original_max_position_embeddings, cases[i].original);
        assert_int_equal(m.max_position_embeddings, cases[i].positions);
        jobspec_fini(&s);
    }
    with_set("train.rope_scaling={factor: 4}",
             "--set train.rope_scaling={factor: 4}: key 'train.rope_scaling': type and factor are "
             "needed (allowed: such as {type: yarn, factor: 40})");
    with_set(
        "train.rope_scaling={type: yarn, factor: 4, rope_theta: 5}",
        "--set train.rope_scaling={type: yarn, factor: 4, rope_theta: 5}:1:37: key "
        "'train.rope_scaling.rope_theta': is the model's: weights were trained with it (change "
        "train.model)");
    with_set("train.rope_scaling=yarn",
             "--set train.rope_scaling=yarn: key 'train.rope_scaling': a map is expected (allowed: "
             "such as {type: yarn, factor: 40})");
}

/* A job and a model that do not fit are refused: experts, layers, batch, lengths; for every size an
 * elastic job may have. */
static void test_model(void **state)
{
    (void)state;
    static const char small[] =
        "{\"num_hidden_layers\": 3, \"n_routed_experts\": 8, \"n_group\": 2, \"topk_group\": 1,"
        " \"num_experts_per_tok\": 2, \"max_position_embeddings\": 512}";
    check_model("queue=null", small, "");
    check_model("train.sequence_length=513", small,
                "job.yaml: key 'train.sequence_length': 513 is over the model's "
                "max_position_embeddings (allowed: up to 512)");
    check_model(
        "train.sequence_length=1", small,
        "job.yaml: key 'train.sequence_length': 1 is too short for 1 multi-token prediction layers "
        "(allowed: from 2)");
    check_model("train.parallel={pipeline: 4, expert: 1}", small,
                "job.yaml: key 'train.parallel.pipeline': 4 ranks with 1 stage each, but the model "
                "has 3 layers (allowed: up to 3)");
    check_model(
        "train.parallel={pipeline: 2, expert: 2, schedule: dualpipev}", small,
        "job.yaml: key 'train.parallel.pipeline': 2 ranks with 2 stages each, but the model "
        "has 3 layers (allowed: up to 1)");
    check_model("train.parallel={pipeline: 1, expert: 2, schedule: dualpipev}", small, "");
    check_model("train={model: m, data: {train: d}, steps: 1, global_batch: 10000000, micro_batch: "
                "10000000}",
                small,
                "job.yaml: key 'train.micro_batch': 10000000 sequences of 256 tokens to 2 experts "
                "each are too many at once over 1 ranks "
                "(allowed: 2^31 - 1 in all; make it smaller)");
    check_model(
        "train.parallel.expert=4",
        "{\"n_routed_experts\": 6, \"n_group\": 1, \"topk_group\": 1, \"num_experts_per_tok\": 2}",
        "job.yaml: key 'train.parallel.expert': 4 ranks do not divide the model's 6 routed experts "
        "(allowed: a divisor of it)");
    check_model(
        "train.parallel.expert=2", "{\"n_routed_experts\": 0}",
        "job.yaml: key 'train.parallel.expert': 2 for a model without experts (allowed: 1)");
    check_model(
        "train.global_batch=18", small,
        "job.yaml: key 'train.global_batch': 18 does not divide over 4 data-parallel ranks x "
        "micro_batch 1 (allowed: a multiple of 4)");
    check_model(
        "train.micro_batch=8", small,
        "job.yaml:12:17: key 'train.global_batch': 16 does not divide over 4 data-parallel ranks x "
        "micro_batch 8 (allowed: a multiple of 32)");
    check_model(
        "nodes={min: 2, max: 3}", small,
        "job.yaml:12:17: key 'train.global_batch': 16 does not divide over 6 data-parallel ranks x "
        "micro_batch 1 (allowed: a multiple of 6)");
    struct jobspec s;
    struct err err;
    assert_int_equal(parse(&s, "name: a\ncommand: [true]\n", &err), 0);
    assert_int_equal(jobspec_check_model(&s, NULL, "job.yaml", &err), 0);
    jobspec_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contract),      cmocka_unit_test(test_command),
        cmocka_unit_test(test_set),           cmocka_unit_test(test_refused),
        cmocka_unit_test(test_refused_whole), cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_overflow),      cmocka_unit_test(test_model),
        cmocka_unit_test(test_init_job),      cmocka_unit_test(test_rope_scaling),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
