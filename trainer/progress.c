#include "trainer/progress.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lib/clock.h"

#define BAR_COLUMNS 24

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

void progress_format(char *text, size_t columns, uint64_t step, uint64_t steps, double loss,
                     double tokens_per_s, int64_t left_ms)
{
    char bar[BAR_COLUMNS + 1];
    uint64_t full = steps > 0 ? step * BAR_COLUMNS / steps : 0;
    for (uint64_t i = 0; i < BAR_COLUMNS; i++) {
        bar[i] = i < full ? '#' : '.';
    }
    bar[BAR_COLUMNS] = 0;
    char left[32];
    format_left(left, sizeof left, left_ms);
    snprintf(text, columns + 1, "[%s] %" PRIu64 "/%" PRIu64 "  loss %.3f  %.0f tokens/s  %s left",
             bar, step, steps, loss, tokens_per_s, left);
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

static void draw_bar(char bar[BAR_COLUMNS + 1], double share)
{
    for (int i = 0; i < BAR_COLUMNS; i++) {
        bar[i] = i < (int)(share * BAR_COLUMNS) ? '#' : '.';
    }
    bar[BAR_COLUMNS] = 0;
}

void progress_bytes(uint64_t done, uint64_t all)
{
    static int64_t drawn_ms;
    char bar[BAR_COLUMNS + 1];
    char line[128];
    int64_t now = clock_boot_ms();
    if (!on_terminal() || now - drawn_ms < 100) {
        return;
    }
    drawn_ms = now;
    draw_bar(bar, all > 0 ? (double)done / (double)all : 1);
    snprintf(line, sizeof line, "\r\033[K[%s] %.2f of %.2f GB", bar, (double)done / 1e9,
             (double)all / 1e9);
    put(line);
}

void progress_draw(uint64_t step, uint64_t steps, double loss, double tokens_per_s, int64_t left_ms)
{
    if (!on_terminal()) {
        return;
    }
    struct winsize size = {0};
    char line[256] = "\r\033[K";
    size_t columns = 80;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1) {
        columns = size.ws_col - 1u;
    }
    size_t room = sizeof line - strlen(line) - 1;
    progress_format(line + strlen(line), columns < room ? columns : room, step, steps, loss,
                    tokens_per_s, left_ms);
    put(line);
}

void progress_clear(void)
{
    if (on_terminal()) {
        put("\r\033[K");
    }
}
