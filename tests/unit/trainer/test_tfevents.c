#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/file.h"
#include "trainer/progress.h"
#include "trainer/tfevents.h"

/* The CRC agrees with RFC 3720 appendix B.4, the mask with its definition. */
static void test_crc(void **state)
{
    (void)state;
    uint8_t bytes[32] = {0};
    assert_int_equal(tfevents_crc32c("123456789", 9), 0xe3069283);
    assert_int_equal(tfevents_crc32c("", 0), 0);
    assert_int_equal(tfevents_crc32c(bytes, 32), 0x8a9136aa);
    memset(bytes, 0xff, 32);
    assert_int_equal(tfevents_crc32c(bytes, 32), 0x62a8ab43);
    for (uint8_t i = 0; i < 32; i++) {
        bytes[i] = i;
    }
    assert_int_equal(tfevents_crc32c(bytes, 32), 0x46dd794e);
    assert_int_equal(tfevents_mask(0), 0xa282ead8);
    assert_int_equal(tfevents_mask(0x8000), 0xa282ead9);
}

/* The record at *at: checks both CRCs, returns its data. */
static const uint8_t *next_record(const struct buf *file, size_t *at, uint64_t *len)
{
    uint32_t crc;
    const uint8_t *p = file->data + *at;
    assert_true(file->len - *at >= 16);
    memcpy(len, p, 8);
    memcpy(&crc, p + 8, 4);
    assert_int_equal(crc, tfevents_mask(tfevents_crc32c(p, 8)));
    assert_true(*len <= file->len - *at - 16);
    memcpy(&crc, p + 12 + *len, 4);
    assert_int_equal(crc, tfevents_mask(tfevents_crc32c(p + 12, *len)));
    *at += 16 + *len;
    return p + 12;
}

/* A file is: version record, session start after a resume, one event a step, framed and encoded as
 * TensorFlow has it. */
static void test_file(void **state)
{
    (void)state;
    char dir[] = "/tmp/test_tfevents.XXXXXX";
    assert_non_null(mkdtemp(dir));
    char tb[64];
    snprintf(tb, sizeof tb, "%s/tb", dir);
    struct tfevents t;
    assert_int_equal(tfevents_open(&t, tb, 300, NULL), 0);
    assert_non_null(strstr(t.path, "/tb/events.out.tfevents."));
    const struct tfevents_scalar scalars[] = {{"loss", 2.5}, {"lr", 0.125}};
    assert_int_equal(tfevents_write(&t, 1500, 300, scalars, 2, NULL), 0);
    struct buf file = {0};
    assert_int_equal(file_read(t.path, 1 << 20, &file, NULL), 0);
    size_t at = 0;
    uint64_t len;
    const uint8_t *p = next_record(&file, &at, &len);
    assert_int_equal(len, 9 + 2 + 13); /* wall time, then field 3 */
    assert_int_equal(p[0], 0x09);
    assert_memory_equal(p + 9,
                        "\x1a\x0d"
                        "brain.Event:2",
                        15);
    p = next_record(&file, &at, &len);
    assert_memory_equal(p + 9, "\x10\xac\x02\x3a\x02\x08\x01",
                        7); /* step 300, session_log {status: START} */
    p = next_record(&file, &at, &len);
    const uint8_t event[] = {0x09, 0,    0,    0,    0,   0,   0,   0xf8, 0x3f, /* wall_time 1.5 */
                             0x10, 0xac, 0x02,                                  /* step 300 */
                             0x2a, 24,                                          /* summary */
                             0x0a, 11,   0x0a, 4,    'l', 'o', 's', 's',  0x15, 0, 0, 0x20,
                             0x40, 0x0a, 9,    0x0a, 2,   'l', 'r', 0x15, 0,    0, 0, 0x3e};
    assert_int_equal(len, sizeof event);
    assert_memory_equal(p, event, sizeof event);
    assert_int_equal(at, file.len);
    tfevents_close(&t);
    tfevents_close(&t);
    assert_int_equal(tfevents_write(&t, 0, 1, scalars, 2, NULL), 0); /* closed: nothing happens */
    buf_fini(&file);
    file_remove_tree(dir, NULL);
}

/* The bar is empty at the start, full at the end, fits the terminal, and tells the time in fitting
 * units. */
static void test_progress(void **state)
{
    (void)state;
    char text[256];
    progress_format(text, 200, 0, 100, 5.5, 1000, 61000);
    assert_string_equal(text,
                        "[........................] 0/100  loss 5.500  1000 tokens/s  1m01s left");
    progress_format(text, 200, 100, 100, 2.25, 1000, 0);
    assert_string_equal(
        text, "[########################] 100/100  loss 2.250  1000 tokens/s  0m00s left");
    progress_format(text, 200, 50, 100, 2.25, 1000, 90061000);
    assert_non_null(strstr(text, "[############............]"));
    assert_non_null(strstr(text, "1d01h left"));
    progress_format(text, 20, 50, 100, 2.25, 1000, 7260000);
    assert_int_equal(strlen(text), 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_progress),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
