#include "trainer/progress.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lib/clock.h"

#define BAR_COLUMNS      24
#define LINE_COLUMNS_MAX 200
#define DRAW_MS          100
#define ERASE            "\r\033[K"

static void format_left(char *text, size_t bytes, int64_t ms)
{
    int64_t s = (ms + 999) / 1000;
    if (s >= 86400) {
        snprintf(text, bytes, "%" PRId64 "d%02" PRId64 "h", s / 86400, s / 3600 % 24);
    } else if (s >= 3600) {
        snprintf(text, bytes, "%" PRId64 "h%02" PRId64 "m", s / 3600, s / 60 % 60);
    } else {
        snprintf(text, bytes, "%" PRId64 "m%02" PRId64 "s", s / 60, s % 60);
    }
}

static void format_bar(char bar[BAR_COLUMNS + 1], double share)
{
    for (int i = 0; i < BAR_COLUMNS; i++) {
        bar[i] = i + 1 <= share * BAR_COLUMNS ? '#' : '.';
    }
    bar[BAR_COLUMNS] = 0;
}

void progress_format(char *text, size_t columns, uint64_t step, uint64_t steps, double loss,
                     double tokens_per_s, int64_t left_ms)
{
    char bar[BAR_COLUMNS + 1];
    char left[32];
    format_bar(bar, steps > 0 ? (double)step / (double)steps : 0);
    format_left(left, sizeof left, left_ms);
    snprintf(text, columns + 1, "[%s] %" PRIu64 "/%" PRIu64 "  loss %.3f  %.0f tokens/s  %s left",
             bar, step, steps, loss, tokens_per_s, left);
}

void progress_format_bytes(char *text, size_t columns, uint64_t done, uint64_t total,
                           uint64_t tokens, int64_t elapsed_ms)
{
    char bar[BAR_COLUMNS + 1];
    char left[32] = "?";
    double share = total > 0 && done <= total ? (double)done / (double)total : 0;
    double elapsed = elapsed_ms > 0 ? (double)elapsed_ms : 1;
    format_bar(bar, share);
    if (share > 0) {
        format_left(left, sizeof left, (int64_t)(elapsed * (1 - share) / share));
    }
    snprintf(text, columns + 1, "[%s] %.1f/%.1f MB  %" PRIu64 " tokens  %.0f tokens/s  %s left",
             bar, (double)done / 1e6, (double)total / 1e6, tokens, (double)tokens / elapsed * 1e3,
             left);
}

static bool on_terminal(void)
{
    return isatty(STDERR_FILENO) == 1;
}

static void put(const char *text)
{
    ssize_t ignored = write(STDERR_FILENO, text, strlen(text));
    (void)ignored;
}

/* What fits, of the line that is drawn over the last one. */
static size_t columns_of_terminal(void)
{
    struct winsize size = {0};
    bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
    size_t columns = known ? size.ws_col - 1u : 80;
    return columns < LINE_COLUMNS_MAX ? columns : LINE_COLUMNS_MAX;
}

void progress_bytes(uint64_t done, uint64_t all)
{
    static int64_t drawn_ms;
    char bar[BAR_COLUMNS + 1];
    char line[128];
    int64_t now = clock_boot_ms();
    if (!on_terminal() || now - drawn_ms < DRAW_MS) {
        return;
    }
    drawn_ms = now;
    format_bar(bar, all > 0 ? (double)done / (double)all : 1);
    snprintf(line, sizeof line, ERASE "[%s] %.2f of %.2f GB", bar, (double)done / 1e9,
             (double)all / 1e9);
    put(line);
}

void progress_draw(uint64_t step, uint64_t steps, double loss, double tokens_per_s, int64_t left_ms)
{
    char line[sizeof ERASE + LINE_COLUMNS_MAX] = ERASE;
    if (on_terminal()) {
        progress_format(line + strlen(ERASE), columns_of_terminal(), step, steps, loss,
                        tokens_per_s, left_ms);
        put(line);
    }
}

void progress_draw_bytes(uint64_t done, uint64_t total, uint64_t tokens, int64_t elapsed_ms)
{
    static int64_t drawn_ms = -DRAW_MS;
    char line[sizeof ERASE + LINE_COLUMNS_MAX] = ERASE;
    bool due = elapsed_ms < drawn_ms || elapsed_ms - drawn_ms >= DRAW_MS;
    if (due && on_terminal()) {
        progress_format_bytes(line + strlen(ERASE), columns_of_terminal(), done, total, tokens,
                              elapsed_ms);
        put(line);
        drawn_ms = elapsed_ms;
    }
}

void progress_clear(void)
{
    if (on_terminal()) {
        put(ERASE);
    }
}
