#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/worker/folder.h"
#include "worker/attempt_dir.h"
#include "worker/ckpt_order.h"

/* Only what is named like a checkpoint is ever removed. */
static void test_checkpoint_paths(void **state)
{
    (void)state;
    static const char *good[] = {"/c/t00001-e00002/step-00000100", "/t123456-e00002/step-1",
                                 "/a/b..c/t00001-e00002/step-7"};
    static const char *bad[] = {
        "",
        "/",
        "relative/t00001-e00002/step-1",
        "/c/t00001-e00002",
        "/c/t00001-e00002/",
        "/c/t00001-e00002/step-",
        "/c/t00001-e00002/step-1/",
        "/c/t00001-e00002/step-1x",
        "/c/t0001-e00002/step-1",
        "/c/t00001-e0002/step-1",
        "/c/xt00001-e00002/step-1",
        "/c/t00001-e00002x/step-1",
        "/c/../t00001-e00002/step-1",
        "/c/t00001-e00002/../step-1",
        "/c/t00001-e00002/step-1/..",
        "/home",
        "/c/t00001-e00002/other",
        "/c/step-1",
        "/step-1",
    };
    struct err err = {0};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(ckpt_check_path(good[i], &err), 0);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (ckpt_check_path(bad[i], &err) != ERR_INVALID ||
            ckpt_remove(bad[i], &err) != ERR_INVALID) {
            fail_msg("'%s' is taken for a checkpoint", bad[i]);
        }
    }
}

/* Removing is idempotent and takes the folder alone; a link in its place is left, and what it leads
 * to. */
static void test_checkpoint_removal(void **state)
{
    (void)state;
    struct err err = {0};
    char path[256];
    char link[256];
    snprintf(path, sizeof path, "%s/t00001-e00002/step-100", folder);
    assert_int_equal(file_mkdirs(path, 0700, NULL), 0);
    assert_int_equal(ckpt_publish(path, "{}", &err), 0);
    assert_int_equal(ckpt_publish(path, "{}", &err), 0);
    assert_int_equal(ckpt_publish(path, "{1}", &err), ERR_CONFLICT);
    assert_int_equal(attempt_dir_write(path, "shard", "x", 1, &err), 0);
    snprintf(link, sizeof link, "%s/t00001-e00002/step-200", folder);
    assert_int_equal(symlink(path, link), 0);
    assert_int_equal(ckpt_remove(link, &err), ERR_INVALID);
    assert_int_equal(ckpt_publish(link, "{}", &err), ERR_NOT_FOUND);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(ckpt_remove(path, &err), 0);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(ckpt_remove(path, &err), 0);
    assert_int_equal(ckpt_publish(path, "{}", &err), ERR_NOT_FOUND);
    assert_int_equal(access(path_of("t00001-e00002"), F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checkpoint_paths),
        cmocka_unit_test(test_checkpoint_removal),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
