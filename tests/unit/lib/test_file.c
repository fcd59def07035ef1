#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/file.h"

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/ds-file-XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    return file_remove_tree(folder, NULL);
}

static const char *path_of(const char *file)
{
    static char paths[4][300];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, file);
    return path;
}

/* What was written is read; the limit counts; a missing file and one without permission are told
 * apart. */
static void test_read_write(void **state)
{
    (void)state;
    struct buf b = {0};
    struct err err;
    buf_append_str(&b, "kept");
    assert_int_equal(file_write_durable(path_of("f"), "hello", 5, 0640, &err), 0);
    assert_int_equal(file_read(path_of("f"), 5, &b, &err), 0);
    assert_string_equal(buf_cstr(&b), "kepthello");
    assert_int_equal(file_read(path_of("f"), 4, &b, &err), ERR_TOO_LARGE);
    assert_string_equal(buf_cstr(&b), "kepthello");
    assert_int_equal(file_read(path_of("none"), 5, &b, &err), ERR_NOT_FOUND);
    assert_int_equal(file_read(folder, 5, &b, &err), ERR_IO);
    struct stat st;
    assert_int_equal(stat(path_of("f"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(access(path_of("f.tmp"), F_OK), -1);
    buf_fini(&b);
}

/* A write that fails leaves the old content and no litter. */
static void test_failed_write(void **state)
{
    (void)state;
    struct err err;
    struct buf b = {0};
    assert_int_equal(file_write_durable(path_of("d/f"), "x", 1, 0644, &err), ERR_NOT_FOUND);
    assert_int_equal(mkdir(path_of("d"), 0755), 0);
    assert_int_equal(mkdir(path_of("d/f"), 0755), 0); /* a folder in the way */
    assert_int_not_equal(file_write_durable(path_of("d/f"), "x", 1, 0644, &err), 0);
    assert_int_equal(access(path_of("d/f.tmp"), F_OK), -1);
    assert_int_equal(file_write_durable(path_of("f"), "old", 3, 0644, &err), 0);
    int full = open("/dev/full", O_WRONLY);
    assert_int_equal(file_write_all(full, "x", 1, &err), ERR_NOSPACE);
    close(full);
    assert_int_equal(file_read(path_of("f"), 100, &b, &err), 0);
    assert_string_equal(buf_cstr(&b), "old");
    buf_fini(&b);
}

/* mkdir -p, twice; a file in the way is refused; rm -r takes a tree but not what a link points to.
 */
static void test_folders(void **state)
{
    (void)state;
    struct err err;
    assert_int_equal(file_mkdirs(path_of("a/b//c"), 0755, &err), 0);
    assert_int_equal(file_mkdirs(path_of("a/b/c/"), 0755, &err), 0);
    assert_int_equal(access(path_of("a/b/c"), X_OK), 0);
    assert_int_equal(file_write_durable(path_of("a/b/f"), "x", 1, 0644, &err), 0);
    assert_int_not_equal(file_mkdirs(path_of("a/b/f/g"), 0755, &err), 0);
    assert_int_equal(mkdir(path_of("outside"), 0755), 0);
    assert_int_equal(file_write_durable(path_of("outside/f"), "x", 1, 0644, &err), 0);
    assert_int_equal(symlink(path_of("outside"), path_of("a/link")), 0);
    assert_int_equal(file_remove_tree(path_of("a"), &err), 0);
    assert_int_equal(access(path_of("a"), F_OK), -1);
    assert_int_equal(access(path_of("outside/f"), F_OK), 0);
    assert_int_equal(file_remove_tree(path_of("a"), &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_read_write, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_failed_write, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_folders, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
