/* What is drawn: plots and the frames of --watch. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ctl/plot.h"
#include "report/axis.h"
#include "ctl/text.h"
#include "ctl/watch.h"

static const struct terminal ascii = {.columns = 80, .rows = 24};
static const struct terminal braille = {.columns = 80, .rows = 24, .utf8 = true};

static size_t lines_of(const char *text)
{
    size_t lines = 0;
    for (; *text != 0; text++) {
        lines += *text == '\n';
    }
    return lines;
}

/* A falling line starts at the top left and ends at the bottom right; ticks are round numbers in
 * the range. */
static void test_plot_ascii(void **state)
{
    (void)state;
    const double x[] = {0, 10};
    const double y[] = {5, 1};
    const struct plot_series series = {"loss", x, y, 2, false, COLOUR_CYAN};
    const struct plot plot = {&series, 1, "step", 32, 8};
    struct buf out = {0};
    assert_true(plot_draw(&out, &plot, &ascii));
    assert_string_equal(buf_cstr(&out), "   ** loss\n"
                                        "  |***\n"
                                        "4 +   ******\n"
                                        "  |         *****\n"
                                        "2 +              ******\n"
                                        "  |                    ***\n"
                                        "  ++----------+----------+\n"
                                        "   0          5         10  step\n");
    buf_fini(&out);
}

/* No line is wider than asked for, and there are as many as asked for, whatever the size. */
static void test_plot_fits(void **state)
{
    (void)state;
    enum { STEPS = 1000 };
    double x[STEPS], y[STEPS];
    for (size_t i = 0; i < STEPS; i++) {
        x[i] = (double)(i + 1) * 1000; /* a tick at the very end */
        y[i] = 2.2 + 3.3 * exp(-(double)i / 100) + 0.1 * sin((double)i);
    }
    const struct plot_series series[] = {
        {"training loss", x, y, STEPS, false, COLOUR_CYAN},
        {"validation loss", x + 99, y + 99, 1, true, COLOUR_YELLOW},
    };
    for (size_t columns = 30; columns < 200; columns += 17) {
        for (size_t rows = 8; rows < 40; rows += 5) {
            const struct terminal *terminals[] = {&ascii, &braille};
            for (size_t t = 0; t < 2; t++) {
                const struct plot plot = {series, 2, "step", columns, rows};
                struct buf out = {0};
                assert_true(plot_draw(&out, &plot, terminals[t]));
                assert_int_equal(lines_of(buf_cstr(&out)), rows);
                char *line = strtok(buf_cstr(&out),
                                    "\n"); /* the legend may be wider than a very narrow plot */
                while ((line = strtok(NULL, "\n")) != NULL) {
                    assert_true(text_width(line, strlen(line)) <= columns);
                }
                buf_fini(&out);
            }
        }
    }
}

/* Points and gaps: a point is a mark of its own; a value that is not a number leaves a gap and no
 * trace. */
static void test_plot_points_and_gaps(void **state)
{
    (void)state;
    const double x[] = {1, 2, 3, 4};
    const double y[] = {1, NAN, NAN, 1};
    const double px[] = {4};
    const double py[] = {2};
    const struct plot_series series[] = {
        {"a", x, y, 4, false, COLOUR_CYAN},
        {"b", px, py, 1, true, COLOUR_YELLOW},
    };
    const struct plot plot = {series, 2, "step", 40, 8};
    struct buf out = {0};
    size_t stars = 0;
    assert_true(plot_draw(&out, &plot, &ascii));
    const char *body = strchr(buf_cstr(&out), '\n');
    for (const char *c = body; *c != 0; c++) {
        stars += *c == '*';
    }
    assert_int_equal(stars, 2);
    assert_non_null(strchr(body, 'o'));
    buf_fini(&out);
}

/* Nothing finite: nothing drawn. One value alone, or all the same: still a plot. */
static void test_plot_degenerate(void **state)
{
    (void)state;
    const double x[] = {1, 2};
    const double none[] = {NAN, INFINITY};
    const double same[] = {0, 0};
    struct buf out = {0};
    struct plot_series series = {"a", x, none, 2, false, COLOUR_CYAN};
    const struct plot plot = {&series, 1, "step", 60, 12};
    assert_false(plot_draw(&out, &plot, &ascii));
    assert_int_equal(out.len, 0);
    series.y = same;
    assert_true(plot_draw(&out, &plot, &braille));
    series.count = 1;
    assert_true(plot_draw(&out, &plot, &braille));
    buf_fini(&out);
}

/* Distances of ticks are 1, 2 or 5 times a power of ten. */
static void test_tick_step(void **state)
{
    (void)state;
    assert_float_equal(axis_step(10, 10), 1, 1e-12);
    assert_float_equal(axis_step(12, 10), 2, 1e-12);
    assert_float_equal(axis_step(3, 6), 0.5, 1e-12);
    assert_float_equal(axis_step(70000, 10), 10000, 1e-9);
    assert_float_equal(axis_step(0.003, 10), 0.0005, 1e-12);
}

/* A frame never scrolls: at most so many lines, none over the width, each cleared to its end; what
 * is left out is counted. */
static void test_watch_frame(void **state)
{
    (void)state;
    struct buf out = {0};
    struct buf page = {0};
    const struct terminal t = {.is_tty = true, .columns = 20, .rows = 6};
    for (int i = 0; i < 10; i++) {
        buf_printf(&page, "line %d that is much too long\n", i);
    }
    watch_frame(&out, "heading", "trouble", buf_cstr(&page), &t);
    assert_int_equal(lines_of(buf_cstr(&out)), 5);
    assert_non_null(strstr(buf_cstr(&out), "\033[Hheading\033[K\ntrouble\033[K\n"));
    assert_non_null(strstr(buf_cstr(&out), "line 2 that is much \033[0m\033[K"));
    assert_null(strstr(buf_cstr(&out), "line 3"));
    assert_non_null(strstr(buf_cstr(&out), "(7 more lines)"));
    buf_reset(&out);
    watch_frame(&out, "heading", "", "a\nb\nc\nd\n", &t);
    assert_int_equal(lines_of(buf_cstr(&out)), 5);
    assert_non_null(strstr(buf_cstr(&out), "\nd\033[K\033[J"));
    assert_null(strstr(buf_cstr(&out), "more lines"));
    buf_fini(&out);
    buf_fini(&page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plot_ascii),
        cmocka_unit_test(test_plot_fits),
        cmocka_unit_test(test_plot_points_and_gaps),
        cmocka_unit_test(test_plot_degenerate),
        cmocka_unit_test(test_tick_step),
        cmocka_unit_test(test_watch_frame),
    };
    return cmocka_run_group_tests_name("ctl screen", tests, NULL, NULL);
}
