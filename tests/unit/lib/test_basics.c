#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/buf_json.h"
#include "lib/clock.h"
#include "lib/err.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/utf8.h"
#include "tests/unit/random.h"

/* A buffer grows, is cut from the front and printed into, and is always terminated for readers of
 * text. */
static void test_buf(void **state)
{
    (void)state;
    struct buf b = {0};
    assert_string_equal(buf_cstr(&b), "");
    for (int i = 0; i < 1000; i++) {
        buf_printf(&b, "%d,", i);
    }
    assert_int_equal(b.len, 3890);
    buf_consume(&b, 3886);
    assert_string_equal(buf_cstr(&b), "999,");
    buf_append(&b, NULL, 0);
    buf_append_str(&b, "x");
    assert_string_equal(buf_cstr(&b), "999,x");
    buf_consume(&b, 100);
    assert_int_equal(b.len, 0);
    buf_reset(&b);
    buf_append(&b, "a\0b", 3);
    assert_memory_equal(b.data, "a\0b", 3);
    buf_fini(&b);
    buf_fini(&b);
    assert_null(b.data);
}

/* Texts and numbers as JSON; the shortest form of a number that reads back as the same. */
static void test_buf_json(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_json_text(&b, "a\"\\\n\t\x01\x7f\xc3\xa4\xc2\x85\xe2\x80\xa8\xef\xbb\xbf\xf0\x9f\x98\x80/");
    assert_string_equal(
        buf_cstr(&b),
        "\"a\\\"\\\\\\n\\t\\u0001\\u007f\xc3\xa4\\u0085\\u2028\\ufeff\xf0\x9f\x98\x80/\"");
    buf_reset(&b);
    buf_json_text(&b, NULL);
    buf_append_str(&b, " ");
    buf_json_double(&b, 0.1);
    buf_append_str(&b, " ");
    buf_json_double(&b, 1e-8);
    buf_append_str(&b, " ");
    buf_json_double(&b, 1.0 / 0.0);
    buf_append_str(&b, " ");
    buf_json_double(&b, -3);
    assert_string_equal(buf_cstr(&b), "null 0.1 1e-08 null -3");
    random_start("json doubles");
    for (int i = 0; i < 100000; i++) {
        uint64_t bits = random_next();
        double value;
        memcpy(&value, &bits, sizeof value);
        if (value - value == 0) {
            buf_reset(&b);
            buf_json_double(&b, value);
            assert_true(strtod(buf_cstr(&b), NULL) == value);
        }
    }
    buf_fini(&b);
}

/* Codes keep their numbers for ever (they are on the wire); exit statuses are the contract's. */
static void test_err(void **state)
{
    (void)state;
    assert_int_equal(ERR_FAILED, -1);
    assert_int_equal(ERR_NOT_FOUND, -3);
    assert_int_equal(ERR_AGAIN, -15);
    assert_int_equal(ERR_STALE, -16);
    assert_int_equal(ERR_DATA, -23);
    assert_true(ERR_COUNT >= 24);
    assert_int_equal(err_exit_status(0), 0);
    assert_int_equal(err_exit_status(ERR_NOT_FOUND), 3);
    assert_int_equal(err_exit_status(ERR_STALE), 84);
    assert_int_equal(err_exit_status(-1000), 1);
    assert_int_equal(err_exit_status(5), 1);
    assert_string_equal(err_text(ERR_TIMEOUT), "timed out");
    assert_string_equal(err_text(-1000), "unknown error");
    struct err e = {0};
    assert_int_equal(err_set(&e, ERR_INVALID, "x is %d", 5), ERR_INVALID);
    assert_int_equal(err_wrap(&e, "file %s", "f"), ERR_INVALID);
    assert_string_equal(e.text, "file f: x is 5");
    errno = ENOSPC;
    assert_int_equal(err_set_errno(&e, "cannot write %s", "f"), ERR_NOSPACE);
    assert_string_equal(e.text, "cannot write f: No space left on device");
    assert_int_equal(errno, ENOSPC);
    errno = ENOENT;
    assert_int_equal(err_set_errno(NULL, "x"), ERR_NOT_FOUND);
    char large[2000];
    memset(large, 'y', sizeof large);
    large[sizeof large - 1] = 0;
    err_set(&e, ERR_IO, "%s", large);
    assert_int_equal(strlen(e.text), sizeof e.text - 1);
    err_wrap(&e, "%s", large);
    assert_int_equal(strlen(e.text), sizeof e.text - 1);
}

/* RFC 3339 with milliseconds, before 1970 too; what the form cannot show is clamped; read back only
 * as it was written. */
static void test_clock(void **state)
{
    (void)state;
    static const struct {
        int64_t ms;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {1700000000123, "2023-11-14T22:13:20.123Z"},
        {951782400000, "2000-02-29T00:00:00.000Z"},
        {-1, "1969-12-31T23:59:59.999Z"},
        {253402300799999, "9999-12-31T23:59:59.999Z"},
        {INT64_MAX, "9999-12-31T23:59:59.999Z"},
        {INT64_MIN, "0000-01-01T00:00:00.000Z"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[CLOCK_TEXT_BYTES];
        clock_format_utc(cases[i].ms, text);
        assert_string_equal(text, cases[i].text);
        int64_t again = 0;
        assert_true(clock_parse_utc(text, &again));
        clock_format_utc(again, text);
        assert_string_equal(text, cases[i].text);
    }
    int64_t seconds = 0;
    assert_true(clock_parse_utc("2023-11-14T22:13:20Z", &seconds));
    assert_true(seconds == 1700000000000);
    static const char *const none[] = {"",
                                       "2023-11-14",
                                       "2023-02-30T00:00:00.000Z",
                                       "2023-11-14T22:13:20.5Z",
                                       "2023-11-14T22:13:20+01:00",
                                       "2023-11-14T22:13:20.123Z ",
                                       "2023-11-14T+2:13:20Z"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        assert_false(clock_parse_utc(none[i], &seconds));
    }
    int64_t start = clock_boot_ms();
    clock_sleep_ms(20);
    assert_true(clock_boot_ms() - start >= 20);
    assert_true(clock_wall_ms() > 1700000000000);
    assert_true(clock_boot_ns() / 1000000 >= start);
}

/* New memory is zeroed, arrays keep what they hold while they grow, and no memory at all is exit 71
 * with one line. */
static void test_mem(void **state)
{
    (void)state;
    uint8_t *p = mem_alloc(1000);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(p[i], 0);
    }
    free(p);
    void *array = NULL;
    size_t capacity = 0;
    for (size_t i = 0; i < 1000; i++) {
        mem_grow(&array, &capacity, i + 1, sizeof i);
        ((size_t *)array)[i] = i;
    }
    assert_true(capacity >= 1000 && ((size_t *)array)[777] == 777);
    free(array);
    assert_null(mem_strdup(NULL));
    char *text = mem_printf("%s-%d", "a", 7);
    assert_string_equal(text, "a-7");
    free(text);
    pid_t child = fork();
    if (child == 0) {
        close(STDERR_FILENO);
        size_t full = 0;
        void *none = NULL;
        mem_grow(&none, &full, SIZE_MAX / 4, 16);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 71);
}

/* The well-formed sequences of the Unicode standard's table 3-7, exhaustively for two and three
 * bytes. */
static void test_utf8(void **state)
{
    (void)state;
    for (unsigned a = 0; a < 256; a++) {
        uint8_t one[1] = {(uint8_t)a};
        assert_int_equal(utf8_valid(one, 1), a > 0 && a < 0x80);
        for (unsigned b = 0; b < 256; b++) {
            uint8_t two[2] = {(uint8_t)a, (uint8_t)b};
            bool ascii = a > 0 && a < 0x80 && b > 0 && b < 0x80;
            assert_int_equal(utf8_valid(two, 2),
                             ascii || (a >= 0xc2 && a <= 0xdf && b >= 0x80 && b <= 0xbf));
        }
    }
    unsigned characters = 0;
    for (unsigned a = 0x80; a < 256; a++) {
        for (unsigned b = 0x80; b < 256; b++) {
            for (unsigned c = 0x80; c < 256; c++) {
                uint8_t three[3] = {(uint8_t)a, (uint8_t)b, (uint8_t)c};
                characters += utf8_valid(three, 3);
            }
        }
    }
    assert_int_equal(characters,
                     0x10000 - 0x800 - 2048); /* the plane without two-byte forms and surrogates */
    assert_true(utf8_valid("\xf4\x8f\xbf\xbf", 4));
    assert_false(utf8_valid("\xf4\x90\x80\x80", 4));
    assert_false(utf8_valid("\xf0\x8f\xbf\xbf", 4));
    assert_false(utf8_valid("ab\xe2\x82", 4));
    assert_true(utf8_valid("", 0));
    char text[] = "ok\xff\xe2\x82\xac\xc3z\xe2\x82";
    utf8_clean(text, strlen(text));
    assert_string_equal(text, "ok?\xe2\x82\xac?z?"
                              "?");
    random_start("utf8");
    for (int i = 0; i < 100000; i++) {
        uint8_t noise[8];
        uint64_t bits = random_next();
        memcpy(noise, &bits, sizeof noise);
        utf8_clean(noise, sizeof noise);
        assert_true(utf8_valid(noise, sizeof noise));
    }
}

/* Levels by name; a line over the limit is cut and still ends. */
static void test_log(void **state)
{
    (void)state;
    assert_int_equal(log_level_parse("warn"), LOG_WARN);
    assert_int_equal(log_level_parse("loud"), -1);
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        char large[5000];
        memset(large, 'x', sizeof large);
        large[sizeof large - 1] = 0;
        dup2(ends[1], STDERR_FILENO);
        log_init("prog", LOG_INFO);
        log_debug("not seen");
        log_info("job=%d", 5);
        log_error("%s", large);
        _exit(0);
    }
    close(ends[1]);
    waitpid(child, NULL, 0);
    char text[8192] = {0};
    ssize_t got = read(ends[0], text, sizeof text - 1);
    close(ends[0]);
    assert_true(got > 2000 && text[got - 1] == '\n');
    assert_non_null(strstr(text, "Z prog info: job=5\n"));
    assert_null(strstr(text, "not seen"));
    assert_int_equal(strcspn(strchr(text, '\n') + 1, "\n") + 1, strlen(strchr(text, '\n') + 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buf),   cmocka_unit_test(test_buf_json), cmocka_unit_test(test_err),
        cmocka_unit_test(test_clock), cmocka_unit_test(test_mem),      cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
