#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/mem.h"
#include "tests/unit/random.h"
#include "tests/unit/worker/folder.h"
#include "worker/log_file.h"
#include "worker/log_keep.h"
#include "worker/log_list.h"
#include "worker/log_read.h"

static void check_read(const char *name, uint64_t offset, size_t limit, uint64_t begins,
                       const char *text, bool end)
{
    struct log_chunk chunk;
    struct err err;
    assert_int_equal(log_read(path_of(name), offset, limit, &chunk, &err), 0);
    assert_int_equal(chunk.offset, begins);
    assert_int_equal(chunk.data.len, strlen(text));
    assert_memory_equal(chunk.data.data != NULL ? (char *)chunk.data.data : "", text, strlen(text));
    assert_int_equal(chunk.next_offset, begins + strlen(text));
    assert_int_equal(chunk.end, end);
    buf_fini(&chunk.data);
}

/* A rank's files are named by its number and its stream, and nothing is made before the first byte.
 */
static void test_names(void **state)
{
    (void)state;
    char name[LOG_NAME_BYTES];
    struct log_file f;
    log_file_name(name, 12, 0);
    assert_string_equal(name, "rank-12.out");
    log_file_name(name, 12, 1);
    assert_string_equal(name, "rank-12.err");
    log_file_init(&f, folder, "rank-12.out", 10, 2);
    log_file_fini(&f);
    assert_int_not_equal(access(path_of("rank-12.out"), F_OK), 0);
    check_read("rank-12.out", 0, 100, 0, "", true);
    check_read("rank-12.out", 55, 100, 0, "", true);
}

/* A full file is renamed to its offset; the stream reads on across files; the oldest beyond
 * files_kept go, and reading starts at what is left. */
static void test_rotation(void **state)
{
    (void)state;
    struct log_file f;
    log_file_init(&f, folder, "r.out", 10, 2);
    log_file_write(&f, "0123456789", 10);
    log_file_write(&f, "abc", 3);
    check_read("r.out", 0, 100, 0, "0123456789abc", true);
    check_read("r.out", 8, 3, 8, "89a", false);
    check_read("r.out", 13, 3, 13, "", true);
    check_read("r.out", 99, 3, 13, "", true);
    log_file_write(&f, "defghijklm", 10); /* 23 */
    assert_int_equal(access(path_of("r.out.00000000000000000010"), F_OK), 0);
    log_file_write(&f, "ABCDEFGHIJ", 10); /* 33: the first goes */
    assert_int_not_equal(access(path_of("r.out.00000000000000000000"), F_OK), 0);
    check_read("r.out", 0, 100, 10, "abcdefghijklmABCDEFGHIJ", true);
    log_file_fini(&f);
}

/* Whatever is written in whatever pieces: every byte that is still kept reads back at its offset,
 * and at least files_kept full files are kept. */
static void test_random_stream(void **state)
{
    (void)state;
    random_start("log");
    for (int round = 0; round < 20; round++) {
        char name[32];
        struct log_file f;
        struct buf all = {0};
        uint64_t max = 1 + random_below(300);
        uint32_t kept = 1 + (uint32_t)random_below(4);
        snprintf(name, sizeof name, "s%d.out", round);
        log_file_init(&f, folder, name, max, kept);
        for (int i = 0; i < 200; i++) {
            char piece[64];
            size_t len = random_below(sizeof piece);
            for (size_t k = 0; k < len; k++) {
                piece[k] = (char)('a' + random_below(26));
            }
            log_file_write(&f, piece, len);
            buf_append(&all, piece, len);
            struct log_chunk chunk;
            uint64_t from = random_below(all.len + 10);
            size_t limit = 1 + random_below(500);
            assert_int_equal(log_read(path_of(name), from, limit, &chunk, NULL), 0);
            uint64_t oldest = all.len > kept * max ? all.len - kept * max : 0;
            if (from <= all.len && from >= oldest) {
                assert_int_equal(chunk.offset, from);
            }
            assert_true(chunk.offset >= from || chunk.offset == all.len);
            assert_int_equal(chunk.end, chunk.next_offset == all.len);
            assert_int_equal(chunk.data.len,
                             all.len - chunk.offset < limit ? all.len - chunk.offset : limit);
            if (chunk.data.len > 0) {
                assert_memory_equal(chunk.data.data, all.data + chunk.offset, chunk.data.len);
            }
            buf_fini(&chunk.data);
        }
        log_file_fini(&f);
        buf_fini(&all);
    }
}

static uint64_t tail(const char *name, uint64_t lines)
{
    uint64_t offset = 12345;
    assert_int_equal(log_tail_offset(path_of(name), lines, &offset, NULL), 0);
    return offset;
}

/* The last lines are found across files, with and without a newline at the end; more lines than
 * there are is the beginning. */
static void test_tail(void **state)
{
    (void)state;
    struct log_file f;
    log_file_init(&f, folder, "t.out", 8, 4);
    assert_int_equal(tail("t.out", 3), 0);
    log_file_write(&f, "one\ntwo\n", 8);
    log_file_write(&f, "three\nfo", 8);
    log_file_write(&f, "ur\n", 3); /* one two three four */
    assert_int_equal(tail("t.out", 0), 19);
    assert_int_equal(tail("t.out", 1), 14);
    assert_int_equal(tail("t.out", 2), 8);
    assert_int_equal(tail("t.out", 4), 0);
    assert_int_equal(tail("t.out", 5), 0);
    log_file_write(&f, "fi", 2);
    assert_int_equal(tail("t.out", 1), 19);
    assert_int_equal(tail("t.out", 2), 14);
    log_file_fini(&f);
}

/* Lines longer than a block do not confuse the tail. */
static void test_tail_of_long_lines(void **state)
{
    (void)state;
    struct log_file f;
    static char line[300001];
    memset(line, 'x', sizeof line);
    line[300000] = '\n';
    log_file_init(&f, folder, "long.out", 100000, 10);
    log_file_write(&f, line, sizeof line);
    log_file_write(&f, line, sizeof line);
    assert_int_equal(tail("long.out", 1), 300001);
    assert_int_equal(tail("long.out", 2), 0);
    log_file_fini(&f);
}

/* What could not be written is counted and said where it is missing, once writing works again. */
static void test_lost_output(void **state)
{
    (void)state;
    struct log_file f;
    log_file_init(&f, path_of("gone"), "r.out", 1000, 2);
    log_file_write(&f, "lost", 4);
    log_file_write(&f, "lost too", 8);
    assert_int_equal(mkdir(path_of("gone"), 0700), 0);
    log_file_write(&f, "kept\n", 5);
    log_file_fini(&f);
    check_read("gone/r.out", 0, 1000, 0,
               "\n[12 bytes of output lost: they could not be written]\nkept\n", true);
}

static bool all_wanted(void *ctx, uint64_t job, uint64_t epoch)
{
    (void)ctx;
    return job != 3 || epoch != 1;
}

static void put_log(uint64_t job, uint64_t epoch, size_t bytes)
{
    char path[256];
    void *data = mem_alloc(bytes);
    snprintf(path, sizeof path, "%s/state/logs/%lu/%lu", folder, job, epoch);
    assert_int_equal(file_mkdirs(path, 0700, NULL), 0);
    snprintf(path, sizeof path, "%s/state/logs/%lu/%lu/rank-0.out", folder, job, epoch);
    assert_int_equal(file_write_durable(path, data, bytes, 0600, NULL), 0);
    free(data);
}

/* Over the total, the attempts that ended first lose their logs, and the job's folder goes with its
 * last attempt. */
static void test_keep(void **state)
{
    (void)state;
    struct log_keep keep;
    struct log_entry e;
    put_log(3, 1, 100000);
    put_log(3, 2, 100000);
    put_log(4, 7, 100000);
    log_keep_init(&keep, 250000);
    log_keep_scan(&keep, path_of("state"), all_wanted, NULL);
    assert_true(keep.total_bytes >= 200000 && keep.total_bytes < 250000);
    assert_false(log_keep_take_excess(&keep, &e));
    log_keep_add(&keep, &(struct log_entry){3, 1, 100000, 1});
    assert_true(log_keep_take_excess(&keep, &e));
    assert_int_equal(e.job, 3);
    assert_int_equal(e.epoch, 1);
    assert_false(log_keep_take_excess(&keep, &e));
    log_keep_fini(&keep);

    assert_int_equal(log_newest_epoch(path_of("state"), 3), 2);
    log_folder_remove(path_of("state"), 3, 2);
    assert_int_equal(log_newest_epoch(path_of("state"), 3), 1);
    log_folder_remove(path_of("state"), 3, 1);
    assert_int_not_equal(access(path_of("state/logs/3"), F_OK), 0);
    assert_int_equal(log_newest_epoch(path_of("state"), 3), 0);
    assert_int_equal(access(path_of("state/logs/4/7/rank-0.out"), F_OK), 0);
}

/* Entries come out oldest end first, whatever order they came in, also while others come in. */
static void test_keep_order(void **state)
{
    (void)state;
    struct log_keep keep;
    struct log_entry e;
    random_start("log_keep");
    log_keep_init(&keep, 5);
    uint64_t in = 0;
    uint64_t out = 0;
    for (int i = 0; i < 1000; i++) {
        log_keep_add(&keep, &(struct log_entry){1, 1, 1, i + (int64_t)random_below(5)});
        in++;
        int64_t before = -1;
        while (log_keep_take_excess(&keep, &e)) {
            assert_true(e.ended_at_ms >= before);
            before = e.ended_at_ms;
            out++;
        }
        for (size_t k = keep.at + 1; k < keep.count; k++) {
            assert_true(keep.entries[k].ended_at_ms >= keep.entries[k - 1].ended_at_ms);
        }
    }
    assert_int_equal(in - out, 5);
    assert_int_equal(keep.total_bytes, 5);
    log_keep_fini(&keep);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_rotation),
        cmocka_unit_test(test_random_stream),
        cmocka_unit_test(test_tail),
        cmocka_unit_test(test_tail_of_long_lines),
        cmocka_unit_test(test_lost_output),
        cmocka_unit_test(test_keep),
        cmocka_unit_test(test_keep_order),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
