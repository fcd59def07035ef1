#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/file.h"
#include "lib/mem.h"
#include "report/lines.h"
#include "report/metrics.h"
#include "tests/unit/random.h"

static void take(struct metrics *m, const char *line)
{
    metrics_take_line(m, line, strlen(line));
}

static void take_step(struct metrics *m, uint64_t epoch, uint64_t step, double loss)
{
    char line[128];
    snprintf(line, sizeof line,
             "{\"step\":%llu,\"epoch\":%llu,\"tokens\":%llu,\"loss\":%.17g,\"step_ms\":10}",
             (unsigned long long)step, (unsigned long long)epoch, (unsigned long long)step * 100,
             loss);
    take(m, line);
}

/* Every key of a line arrives; what is absent or null is not measured; nan and inf, in text or bare
 * as older files have them, were measured and are not finite. */
static void test_values(void **state)
{
    (void)state;
    struct metrics m = {0};
    take(&m, "{\"step\":7,\"epoch\":2,\"tokens\":700,\"loss\":2.5,\"mtp_loss\":null,\"grad_norm\":"
             "\"inf\",\"lr\":0.0002,\"tokens_per_s\":1000,\"balance_maxvio\":\"-nan\","
             "\"valid_loss\":\"2.0\",\"valid_maxvio\":0.5,\"layer_maxvio\":\"1:0.5,2:0.25\","
             "\"step_ms\":12}");
    take(&m, "{\"step\":8,\"epoch\":2,\"tokens\":800,\"loss\":nan,\"grad_norm\":-inf,\"lr\":inf}");
    metrics_finish(&m);
    assert_int_equal(m.count, 2);
    assert_int_equal(m.broken_lines, 0);
    const struct metrics_row *row = &m.rows[0];
    assert_true(row->step == 7 && row->epoch == 2 && row->tokens == 700);
    assert_true(row->value[METRIC_LOSS] == 2.5);
    assert_true(isnan(row->value[METRIC_MTP_LOSS]));
    assert_true(isinf(row->value[METRIC_GRAD_NORM]));
    assert_true(isinf(row->value[METRIC_MAXVIO]));
    assert_true(isnan(row->value[METRIC_VALID_LOSS])); /* a number in quotes is none */
    assert_true(row->value[METRIC_VALID_MAXVIO] == 0.5);
    assert_true(row->value[METRIC_LR] == 0.0002);
    assert_true(row->value[METRIC_STEP_MS] == 12);
    assert_int_equal(m.layer_count, 2);
    assert_true(m.layers[1].layer == 2 && m.layers[1].maxvio == 0.25 && m.layers_step == 7);
    row = &m.rows[1];
    assert_true(isinf(row->value[METRIC_LOSS]) && isinf(row->value[METRIC_GRAD_NORM]));
    assert_true(isinf(row->value[METRIC_LR]));
    metrics_fini(&m);
}

/* Lines that are no step are counted and leave nothing behind. */
static void test_broken(void **state)
{
    (void)state;
    static const char *const lines[] = {"",
                                        "{",
                                        "[]",
                                        "null",
                                        "7",
                                        "{}",
                                        "{\"step\":0,\"loss\":1}",
                                        "{\"step\":-1,\"loss\":1}",
                                        "{\"step\":1.5,\"loss\":1}",
                                        "{\"step\":\"1\",\"loss\":1}",
                                        "{\"step\":1,\"epoch\":-1,\"loss\":1}",
                                        "{\"step\":99999999999999999999,\"loss\":1}",
                                        "{\"step\":1,\"loss\":nano}"};
    struct metrics m = {0};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        take(&m, lines[i]);
        assert_int_equal(m.broken_lines, i + 1);
    }
    metrics_finish(&m);
    assert_int_equal(m.count, 0);
    metrics_fini(&m);
}

/* A rolled back run: what was done again is there once, as it was done last; what lay beyond the
 * rollback and was never reached again is gone; both are counted to the attempt that did them. */
static void test_rollback(void **state)
{
    (void)state;
    struct metrics m = {0};
    for (uint64_t s = 1; s <= 250; s++) {
        take_step(&m, 1, s, 1);
    }
    for (uint64_t s = 101; s <= 150; s++) {
        take_step(&m, 2, s, 2);
    }
    metrics_finish(&m);
    assert_int_equal(m.count, 150);
    assert_int_equal(m.lost_steps, 150);
    assert_true(m.lost_ms == 1500);
    for (size_t i = 0; i < m.count; i++) {
        assert_true(m.rows[i].step == i + 1);
        assert_true(m.rows[i].value[METRIC_LOSS] == (i < 100 ? 1 : 2));
    }
    const struct metrics_epoch *first = metrics_epoch(&m, 1);
    const struct metrics_epoch *second = metrics_epoch(&m, 2);
    assert_true(first->first_step == 1 && first->last_step == 250 && first->lost_steps == 150);
    assert_true(first->kept_ms == 1000 && first->lost_ms == 1500);
    assert_true(second->first_step == 101 && second->last_step == 150 && second->lost_steps == 0);
    assert_null(metrics_epoch(&m, 3));
    metrics_fini(&m);
}

/* Of any history of attempts, in file order or by step as a coordinator has it: the steps that are
 * left ascend, and each is the newest attempt's at or before which the run never went back. */
static void test_random_histories(void **state)
{
    (void)state;
    random_start("histories");
    for (int round = 0; round < 200; round++) {
        struct metrics m = {0};
        uint64_t expected[400] = {0}; /* step -> epoch, 0: none */
        uint64_t last = 0;
        uint64_t lines = 0;
        uint64_t epochs = 1 + random_below(6);
        for (uint64_t e = 1; e <= epochs; e++) {
            uint64_t from = random_below(last + 1) + 1;
            uint64_t to = from + 1 + random_below(59);
            for (uint64_t s = from; s < 400; s++) {
                expected[s] = s < to ? e : 0;
            }
            for (uint64_t s = from; s < to; s++, lines++) {
                take_step(&m, e, s, (double)e);
            }
            last = to - 1;
        }
        for (size_t i = m.count; i > 1; i--) { /* a shuffle that keeps the order of arrival */
            if (round % 2 == 0) {
                break;
            }
            size_t k = random_below(i);
            struct metrics_row swap = m.rows[i - 1];
            m.rows[i - 1] = m.rows[k];
            m.rows[k] = swap;
        }
        metrics_finish(&m);
        size_t at = 0;
        for (uint64_t s = 1; s < 400; s++) {
            if (expected[s] != 0) {
                assert_true(at < m.count && m.rows[at].step == s);
                assert_true(m.rows[at].epoch == expected[s]);
                at++;
            }
        }
        assert_int_equal(at, m.count);
        assert_true(m.lost_steps + m.count == lines);
        metrics_fini(&m);
    }
}

/* A file whose last line was cut has all lines but that; whoever appends next begins a line of his
 * own; a missing file has none. */
static void test_torn(void **state)
{
    (void)state;
    static const char text[] = "{\"step\":1,\"loss\":1}\n{\"step\":2,\"loss\":1}\n{\"step\":3,\"lo";
    static const char more[] = "{\"step\":3,\"loss\":1}\n";
    char path[] = "/tmp/test_metrics-XXXXXX";
    struct err err = {0};
    struct metrics m = {0};
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(file_write_all(fd, text, strlen(text), &err), 0);
    close(fd);
    assert_int_equal(metrics_read(&m, path, &err), 0);
    assert_true(m.count == 2 && m.torn && m.broken_lines == 0);
    metrics_fini(&m);

    assert_int_equal(lines_open(path, &fd, &err), 0);
    assert_int_equal(file_write_all(fd, more, strlen(more), &err), 0);
    close(fd);
    assert_int_equal(metrics_read(&m, path, &err), 0);
    assert_true(m.count == 3 && !m.torn && m.broken_lines == 1);
    metrics_fini(&m);

    unlink(path);
    assert_int_equal(metrics_read(&m, path, &err), 0);
    assert_int_equal(m.count, 0);
    assert_int_equal(metrics_read(&m, "/proc/self/mem/x", &err) == 0, 0);
    metrics_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),   cmocka_unit_test(test_broken),
        cmocka_unit_test(test_rollback), cmocka_unit_test(test_random_histories),
        cmocka_unit_test(test_torn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
