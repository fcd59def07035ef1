#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/file.h"
#include "worker/config.h"
#include "worker/inventory.h"

static char file[] = "/tmp/ds-worker-config-XXXXXX";

static int make_file(void **state)
{
    (void)state;
    unsetenv("DS_CONFIG");
    unsetenv("DS_SERVER");
    return mkstemp(file) >= 0 ? 0 : -1;
}

static int remove_file(void **state)
{
    (void)state;
    return remove(file);
}

static int load(struct config *c, const char *yaml, struct err *err, int argc, const char **more)
{
    const char *argv[16] = {"dsworkerd", "--config", file};
    for (int i = 0; i < argc; i++) {
        argv[3 + i] = more[i];
    }
    assert_int_equal(file_write_durable(file, yaml, strlen(yaml), 0600, NULL), 0);
    return config_load(c, 3 + argc, (char **)argv, err);
}

/* Everything has a default, and programs are looked for beside our own. */
static void test_defaults(void **state)
{
    (void)state;
    struct config c;
    struct err err = {0};
    assert_int_equal(load(&c, "name: n1\n", &err, 0, NULL), 0);
    assert_string_equal(c.server, "127.0.0.1:6818");
    assert_string_equal(c.state_dir, "/var/lib/ds/worker");
    assert_true(c.accelerators_auto);
    assert_int_equal(c.accelerator_count, 0);
    assert_int_equal(c.orphan_timeout_ms, 30 * 60 * 1000);
    assert_int_equal(c.log_file_mib, 16);
    assert_int_equal(c.log_files, 4);
    assert_null(c.addr);
    assert_true(strstr(c.dsshim, "/dsshim") != NULL && c.dsshim[0] == '/');
    assert_true(strstr(c.dstrain, "/dstrain") != NULL && c.dstrain[0] == '/');
    config_fini(&c);
}

/* All keys of the file are read; the command line replaces them, accelerators as a whole. */
static void test_file_and_line(void **state)
{
    (void)state;
    struct config c;
    struct err err = {0};
    const char *yaml =
        "name: n1\nserver: /run/ds/dsd.sock\nstate_dir: /tmp/x\naddr: 10.0.0.1\n"
        "accelerators: [{model: cpu, count: 2}, {model: H800, count: 8}]\n"
        "dstrain: /opt/dstrain\norphan_timeout: 90s\nlogs: {file_mib: 1, files: 2, total_mib: 3}\n";
    assert_int_equal(load(&c, yaml, &err, 0, NULL), 0);
    assert_string_equal(c.server, "/run/ds/dsd.sock");
    assert_string_equal(c.state_dir, "/tmp/x");
    assert_string_equal(c.addr, "10.0.0.1");
    assert_string_equal(c.dstrain, "/opt/dstrain");
    assert_false(c.accelerators_auto);
    assert_int_equal(c.accelerator_count, 2);
    assert_string_equal(c.accelerators[1].model, "H800");
    assert_int_equal(c.accelerators[1].count, 8);
    assert_int_equal(c.orphan_timeout_ms, 90000);
    assert_int_equal(c.log_total_mib, 3);
    config_fini(&c);

    const char *line[] = {"--name",         "n2",    "--server",       "h:1",
                          "--accelerators", "A 1:3", "--accelerators", "b:0"};
    assert_int_equal(load(&c, yaml, &err, 8, line), 0);
    assert_string_equal(c.name, "n2");
    assert_string_equal(c.server, "h:1");
    assert_int_equal(c.accelerator_count, 2);
    assert_string_equal(c.accelerators[0].model, "A 1");
    assert_int_equal(c.accelerators[0].count, 3);
    config_fini(&c);

    const char *automatic[] = {"--accelerators", "auto"};
    assert_int_equal(load(&c, yaml, &err, 2, automatic), 0);
    assert_true(c.accelerators_auto);
    assert_int_equal(c.accelerator_count, 0);
    config_fini(&c);
}

/* What makes no sense is refused with the file, the line or the option, and what is allowed. */
static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *says;
    } files[] = {
        {"name: n1\nservre: x:1\n", ":2:1"},
        {"name: n1\nservre: x:1\n", "server"},
        {"name: Bad Name\n", "node name"},
        {"name: -x\n", "node name"},
        {"server: nohost\n", "host:port"},
        {"server: h:0\n", "host:port"},
        {"server: h:70000\n", "host:port"},
        {"server: h:1x\n", "host:port"},
        {"server: ':1'\n", "host:port"},
        {"accelerators: {model: cpu}\n", "count"},
        {"accelerators: {model: cpu, count: -1}\n", "count"},
        {"accelerators: {model: cpu, count: 99999}\n", "count"},
        {"accelerators: many\n", "auto"},
        {"accelerators: [auto]\n", "map"},
        {"orphan_timeout: soon\n", "orphan_timeout"},
        {"orphan_timeout: [1]\n", "orphan_timeout"},
        {"logs: {files: 0}\n", "files"},
        {"- a\n", file},
        {"name: [\n", file},
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct config c;
        struct err err = {0};
        assert_int_equal(load(&c, files[i].yaml, &err, 0, NULL), ERR_CONFIG);
        if (strstr(err.text, files[i].says) == NULL) {
            fail_msg("'%s' gives '%s', which does not say '%s'", files[i].yaml, err.text,
                     files[i].says);
        }
        config_fini(&c);
    }
    static const char *lines[][3] = {
        {"--accelerators", "cpu", "MODEL:COUNT"},
        {"--accelerators", ":2", "MODEL:COUNT"},
        {"--accelerators", "cpu:", "MODEL:COUNT"},
        {"--accelerators", "cpu:-1", "MODEL:COUNT"},
        {"--accelerators", "cpu:2x", "MODEL:COUNT"},
        {"--accelerators", "cpu:99999", "at most"},
        {"--log-level", "loud", "level"},
        {"--nonsense", "x", "--nonsense"},
        {"extra", "x", "extra"},
        {"--name", NULL, "--name"},
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct config c;
        struct err err = {0};
        assert_int_equal(load(&c, "name: n1\n", &err, lines[i][1] != NULL ? 2 : 1, lines[i]),
                         ERR_USAGE);
        if (strstr(err.text, lines[i][2]) == NULL) {
            fail_msg("%s gives '%s'", lines[i][0], err.text);
        }
        config_fini(&c);
    }
}

/* An empty file is fine, a missing one that was named is not. */
static void test_missing_file(void **state)
{
    (void)state;
    struct config c;
    struct err err = {0};
    const char *name[] = {"--name", "n1"};
    assert_int_equal(load(&c, "", &err, 2, name), 0);
    config_fini(&c);
    const char *argv[] = {"dsworkerd", "--config", "/nowhere/x.yaml"};
    assert_int_equal(config_load(&c, 3, (char **)argv, &err), ERR_CONFIG);
    assert_non_null(strstr(err.text, "/nowhere/x.yaml"));
    config_fini(&c);
    setenv("DS_CONFIG", "/nowhere/y.yaml", 1);
    assert_int_equal(config_load(&c, 1, (char **)argv, &err), ERR_CONFIG);
    assert_non_null(strstr(err.text, "/nowhere/y.yaml"));
    config_fini(&c);
    unsetenv("DS_CONFIG");
}

/* The example in the tree says what the defaults are, so reading it changes nothing. */
static void test_example(void **state)
{
    (void)state;
    struct config bare;
    struct config example;
    struct err err = {0};
    const char *argv[] = {"dsworkerd", "--config", "etc/dsworkerd.yaml", "--name", "n1"};
    assert_int_equal(load(&bare, "name: n1\n", &err, 0, NULL), 0);
    assert_int_equal(config_load(&example, 5, (char **)argv, &err), 0);
    assert_string_equal(example.server, bare.server);
    assert_string_equal(example.state_dir, bare.state_dir);
    assert_int_equal(example.accelerators_auto, bare.accelerators_auto);
    assert_int_equal(example.orphan_timeout_ms, bare.orphan_timeout_ms);
    assert_int_equal(example.log_file_mib, bare.log_file_mib);
    assert_int_equal(example.log_files, bare.log_files);
    assert_int_equal(example.log_total_mib, bare.log_total_mib);
    config_fini(&bare);
    config_fini(&example);
}

/* Declared accelerators are numbered over all models and named after the node, so that names are
 * unique in the cluster and stay. */
static void test_declared_inventory(void **state)
{
    (void)state;
    struct config c;
    struct inventory inv;
    struct err err = {0};
    assert_int_equal(load(&c,
                          "name: n7\naccelerators: [{model: a, count: 2}, {model: b, count: 1}]\n",
                          &err, 0, NULL),
                     0);
    inventory_init(&inv, &c, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(inv.count, 3);
    assert_int_equal(inv.gpus[2].index, 2);
    assert_string_equal(inv.gpus[2].model, "b");
    assert_string_equal(inv.gpus[2].uuid, "n7/2");
    assert_string_equal(inv.gpus[0].health, "ok");
    inventory_fini(&inv);
    config_fini(&c);
}

/* Without the driver's library there is none, and one line says what to do. */
static void test_no_driver(void **state)
{
    (void)state;
    struct config c;
    struct inventory inv;
    struct err err = {0};
    assert_int_equal(load(&c, "name: n7\nnvml_library: libnowhere.so.1\n", &err, 0, NULL), 0);
    inventory_init(&inv, &c, &err);
    assert_int_equal(inv.count, 0);
    assert_non_null(strstr(err.text, "libnowhere.so.1"));
    assert_non_null(strstr(err.text, "--accelerators"));
    inventory_fini(&inv);
    config_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_example),       cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_file_and_line), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_missing_file),  cmocka_unit_test(test_declared_inventory),
        cmocka_unit_test(test_no_driver),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
