/* ckpt export, against a coordinator that answers from a file and a dstrain that is a shell script
 * in PATH: it prints its arguments and keeps the facts it is given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "ctl/ctl.h"
#include "lib/file.h"
#include "lib/mem.h"
#include "tests/unit/ctl/fake_cluster.h"

static struct fake_server *server;
static char folder[64];
static char *out;
static char *errors;

static void write_script(const char *ending)
{
    char path[128];
    char *script = mem_printf("#!/bin/sh\n"
                              "echo \"$@\"\n"
                              "while [ \"$1\" != --facts ]; do shift; done\n"
                              "cat \"$2\" >%s/facts.json\n"
                              "%s\n",
                              folder, ending);
    snprintf(path, sizeof path, "%s/dstrain", folder);
    assert_int_equal(file_write_durable(path, script, strlen(script), 0755, NULL), 0);
    free(script);
}

static int start(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/dsctl-export-XXXXXX");
    if (mkdtemp(folder) == NULL) {
        return -1;
    }
    server = fake_server_start(fake_cluster_answer, NULL);
    setenv("DS_SERVER", fake_server_address(server), 1);
    char *path = mem_printf("%s:/usr/bin:/bin", folder);
    setenv("PATH", path, 1);
    free(path);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    fake_server_stop(server);
    free(out);
    free(errors);
    return file_remove_tree(folder, NULL);
}

static int dsctl(const char *line)
{
    char copy[256];
    char *argv[32] = {(char[]){"dsctl"}};
    int argc = 1;
    size_t out_len, errors_len;
    free(out);
    free(errors);
    FILE *out_file = open_memstream(&out, &out_len);
    FILE *errors_file = open_memstream(&errors, &errors_len);
    snprintf(copy, sizeof copy, "%s", line);
    for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " ")) {
        argv[argc++] = word;
    }
    int status = ctl_main(argc, argv, out_file, errors_file);
    fclose(out_file);
    fclose(errors_file);
    return status;
}

static json_t *read_facts(void)
{
    char path[128];
    snprintf(path, sizeof path, "%s/facts.json", folder);
    json_t *facts = json_load_file(path, 0, NULL);
    assert_non_null(facts);
    return facts;
}

static void assert_has(const char *where, const char *part)
{
    if (strstr(where, part) == NULL) {
        fail_msg("without '%s':\n%s", part, where);
    }
}

/* dstrain gets the checkpoint's path, the folder and the options; its output is dsctl's; the facts
 * are the job as `job show` has it, and the losses of a few steps. */
static void test_export(void **state)
{
    (void)state;
    static const int steps[] = {1, 2, 10, 20, 50, 100};
    write_script("exit 0");
    assert_int_equal(dsctl("ckpt export 7 --format hf --dtype fp8 --shard-size 1GB -o /out/dir"),
                     0);
    assert_string_equal(errors, "");
    assert_has(out, "export --format hf --dtype fp8 --shard-size 1GB --facts /proc/self/fd/");
    assert_has(out, " -- /ckpt/12 /out/dir\n");
    json_t *facts = read_facts();
    assert_string_equal(json_string_value(json_object_get(facts, "schema")), "ds/job/v1");
    assert_int_equal(json_integer_value(json_object_get(facts, "id")), 12);
    assert_true(json_is_integer(json_object_get(json_object_get(facts, "usage"), "gpu_ms")));
    const json_t *metrics = json_object_get(facts, "metrics");
    assert_int_equal(json_array_size(metrics), sizeof steps / sizeof steps[0]);
    for (size_t i = 0; i < json_array_size(metrics); i++) {
        const json_t *m = json_array_get(metrics, i);
        assert_int_equal(json_integer_value(json_object_get(m, "step")), steps[i]);
        assert_int_equal(json_integer_value(json_object_get(m, "tokens")), 10 * steps[i]);
    }
    json_decref(facts);
    assert_int_equal(dsctl("ckpt export ckpt/7 --output json"), 0); /* a folder, not a format */
    assert_has(out, " -- /ckpt/12 json\n");
}

/* What cannot be exported is refused before dstrain runs; what dstrain refuses is refused; one that
 * is not there, or dies, is named. */
static void test_refusals(void **state)
{
    (void)state;
    char path[128];
    write_script("exit 83");
    assert_int_equal(dsctl("ckpt export 7 -o d"), 1);
    assert_string_equal(errors, ""); /* dstrain says why on its own stderr */
    write_script("kill -9 $$");
    assert_int_equal(dsctl("ckpt export 7 -o d"), 1);
    assert_has(errors, "killed by signal 9");
    assert_int_equal(dsctl("ckpt export 7"), 2);
    assert_has(errors, "-o DIR");
    assert_int_equal(dsctl("ckpt export 7 -o d --dtype fp4"), 2);
    assert_has(errors, "fp32|bf16|fp8");
    assert_int_equal(dsctl("ckpt export 8 -o d"), 5);
    assert_has(errors, "checkpoint 8 is CORRUPT");
    assert_int_equal(dsctl("ckpt export 9 -o d"), 3);
    assert_string_equal(out, "");
    snprintf(path, sizeof path, "%s/dstrain", folder);
    assert_int_equal(remove(path), 0);
    assert_int_equal(dsctl("ckpt export 7 -o d"), 3);
    assert_has(errors, "cannot run dstrain");
}

/* Elsewhere -o is still the format, and help shows each once. */
static void test_output_option(void **state)
{
    (void)state;
    assert_int_equal(dsctl("ckpt show 7 -o name"), 0);
    assert_string_equal(out, "ckpt/7\n");
    assert_int_equal(dsctl("ckpt show 7 -o dir"), 2);
    assert_int_equal(dsctl("ckpt export -h"), 0);
    assert_has(out, "-o, --output DIR");
    assert_null(strstr(out, "table|wide"));
    assert_int_equal(dsctl("ckpt show -h"), 0);
    assert_has(out, "table|wide");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_export),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_output_option),
    };
    return cmocka_run_group_tests_name("ctl ckpt export", tests, start, stop);
}
