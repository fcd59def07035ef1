#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "report/axis.h"
#include "report/chart.h"
#include "report/curve.h"
#include "tests/unit/random.h"

static struct metrics make(size_t count)
{
    struct metrics m = {0};
    m.rows = calloc(count > 0 ? count : 1, sizeof *m.rows);
    m.count = count;
    for (size_t i = 0; i < count; i++) {
        m.rows[i].step = i + 1;
        for (size_t k = 0; k < METRICS; k++) {
            m.rows[i].value[k] = NAN;
        }
    }
    return m;
}

/* Of a long run every value lies between the ends of its piece, the greatest and the least are
 * ends, and a spike of one step is as high as it was, at its place. */
static void test_envelope(void **state)
{
    (void)state;
    random_start("envelope");
    const size_t count = 100000;
    struct metrics m = make(count);
    for (size_t i = 0; i < count; i++) {
        m.rows[i].value[METRIC_LOSS] = 2 + (double)random_below(1000) / 1000;
    }
    size_t at = random_below(count);
    m.rows[at].value[METRIC_LOSS] = 500;
    struct curve c;
    curve_make(&c, &m, METRIC_LOSS, true, false);
    assert_true(c.count > 1 && c.count <= CURVE_POINTS);
    assert_true(c.high == 500 && c.high_step == at + 1);
    assert_true(c.measured == count && c.not_finite == 0);
    double high = 0;
    double low = INFINITY;
    uint64_t steps = 0;
    for (size_t i = 0; i < c.count; i++) {
        const struct curve_point *p = &c.points[i];
        assert_true(i == 0 || p->step > c.points[i - 1].step);
        assert_true(!p->after_gap);
        steps += p->steps;
        low = fmin(low, p->low);
        if (p->high > high) {
            high = p->high;
            assert_true(p->high != 500 ||
                        fabs(p->step - (double)(at + 1)) <= (double)count / CURVE_POINTS);
        }
    }
    assert_true(high == 500 && low == c.low && steps == count);
    curve_fini(&c);
    metrics_fini(&m);
}

/* The mean, the median and the moving average are what their definitions say. */
static void test_figures(void **state)
{
    (void)state;
    static const double values[] = {4, 1, 3, 2};
    struct metrics m = make(4);
    for (size_t i = 0; i < 4; i++) {
        m.rows[i].value[METRIC_LOSS] = values[i];
    }
    struct curve c;
    curve_make(&c, &m, METRIC_LOSS, true, false);
    assert_true(c.first == 4 && c.last == 2 && c.low == 1 && c.low_step == 2);
    assert_true(c.mean == 2.5 && c.median == 2.5);
    assert_float_equal(c.last_line, 2.5, 1e-12); /* fewer than its window: the mean */
    curve_fini(&c);
    metrics_fini(&m);

    m = make(400);
    double line = 0;
    for (size_t i = 0; i < 400; i++) {
        double v = m.rows[i].value[METRIC_LOSS] = sin((double)i);
        line += (v - line) / (i + 1 < 10 ? (double)(i + 1) : 10);
    }
    curve_make(&c, &m, METRIC_LOSS, true, false);
    assert_float_equal(c.last_line, line, 1e-12);
    curve_fini(&c);
    metrics_fini(&m);
}

/* Missing steps break a curve, unless it is one that is measured now and then; what is not finite
 * breaks it too, and is counted. */
static void test_gaps(void **state)
{
    (void)state;
    struct metrics m = make(100);
    for (size_t i = 0; i < 100; i++) {
        m.rows[i].value[METRIC_LOSS] = i >= 40 && i < 60 ? NAN : 1;
        m.rows[i].value[METRIC_VALID_LOSS] = i % 10 == 0 ? 1 : NAN;
    }
    m.rows[80].value[METRIC_LOSS] = INFINITY;
    struct curve c;
    curve_make(&c, &m, METRIC_LOSS, true, false);
    assert_int_equal(c.count, 79);
    assert_true(c.not_finite == 1 && c.not_finite_step == 81);
    for (size_t i = 0; i < c.count; i++) {
        assert_true(c.points[i].after_gap == (c.points[i].step == 61 || c.points[i].step == 82));
    }
    curve_fini(&c);
    curve_make(&c, &m, METRIC_VALID_LOSS, false, true);
    assert_int_equal(c.count, 10);
    for (size_t i = 0; i < c.count; i++) {
        assert_false(c.points[i].after_gap);
    }
    curve_fini(&c);
    metrics_fini(&m);
}

/* Nothing, one value, values as large as they get, and values that are all the same are drawn
 * without a number that is none; nothing at all is said to be so. */
static void test_extremes(void **state)
{
    (void)state;
    static const double sets[][3] = {
        {1, 1, 1},      {0, 0, 0},    {-1e308, 0, 1e308}, {1e308, 1, 1e-308},
        {5e-324, 1, 2}, {-3, -2, -1}, {1e-9, 1e-9, 2e-9}, {INFINITY, 1, INFINITY}};
    for (size_t s = 0; s <= sizeof sets / sizeof sets[0]; s++) {
        for (size_t count = s == sizeof sets / sizeof sets[0] ? 0 : 1; count <= 3; count++) {
            struct metrics m = make(count);
            for (size_t i = 0; i < count; i++) {
                m.rows[i].value[METRIC_LOSS] = s < sizeof sets / sizeof sets[0] ? sets[s][i] : NAN;
            }
            struct curve c;
            curve_make(&c, &m, METRIC_LOSS, true, false);
            const struct chart chart = {
                .title = "t", .unit = "", .series = {{&c, "a", false}}, .count = 1, .limit = NAN};
            struct buf svg = {0};
            bool drawn = chart_svg(&svg, &chart, true);
            assert_true(drawn == (c.count > 0));
            const char *text = buf_cstr(&svg);
            assert_null(strstr(text, "nan"));
            assert_null(strstr(text, "inf"));
            char *spark = curve_spark(&c, 10);
            assert_true(strlen(spark) == 3 * c.count);
            free(spark);
            buf_fini(&svg);
            curve_fini(&c);
            metrics_fini(&m);
        }
    }
}

/* Ticks lie in the range, ascend, are few, and neighbours read differently. */
static void test_axis(void **state)
{
    (void)state;
    random_start("axis");
    for (int round = 0; round < 2000; round++) {
        double low = ldexp(1 + (double)random_below(1000) / 1000, (int)random_below(80) - 40);
        double range = ldexp(1 + (double)random_below(1000) / 1000, (int)random_below(80) - 40);
        const struct axis a = {low, low + fmax(range, low * 1e-3), random_one_in(2)};
        double ticks[24];
        double step = 0;
        size_t count = axis_ticks(&a, ticks, a.log ? 24 : 6, &step);
        for (size_t i = 0; i < count; i++) {
            char text[AXIS_TEXT_BYTES], last[AXIS_TEXT_BYTES];
            assert_true(ticks[i] >= a.low * (1 - 1e-9) && ticks[i] <= a.high + step);
            axis_text_short(text, ticks[i], a.log ? ticks[i] : step);
            if (i > 0) {
                assert_true(ticks[i] > ticks[i - 1]);
                axis_text_short(last, ticks[i - 1], a.log ? ticks[i - 1] : step);
                if (step > ticks[i] * 1e-2 || a.log) {
                    assert_string_not_equal(text, last);
                }
            }
        }
    }
    char text[AXIS_TEXT_BYTES];
    axis_text_short(text, 250000, 50000);
    assert_string_equal(text, "250K");
    axis_text_short(text, 0, 50000);
    assert_string_equal(text, "0");
    axis_text_short(text, 2.2e-4, 1e-5);
    assert_string_equal(text, "2.2e-04");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_envelope), cmocka_unit_test(test_figures),
        cmocka_unit_test(test_gaps),     cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_axis),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
