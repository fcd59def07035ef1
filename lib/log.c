#include "lib/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/clock.h"

static const char *program = "ds";
static enum log_level threshold = LOG_INFO;

static const char *const names[] = {"error", "warn", "info", "debug"};

void log_init(const char *name, enum log_level level)
{
    program = name;
    threshold = level;
}

int log_level_parse(const char *text)
{
    for (int i = 0; i < (int)(sizeof names / sizeof names[0]); i++) {
        if (strcmp(text, names[i]) == 0) {
            return i;
        }
    }
    return -1;
}

void log_write(enum log_level level, const char *fmt, ...)
{
    if (level > threshold) {
        return;
    }
    /* One write per line, so that lines of several processes on one stream do not mix. */
    char line[2048];
    char when[CLOCK_TEXT_BYTES];
    clock_format_utc(clock_wall_ms(), when);
    int used = snprintf(line, sizeof line, "%s %s %s: ", when, program, names[level]);
    va_list ap;
    va_start(ap, fmt);
    int more = vsnprintf(line + used, sizeof line - (size_t)used - 1, fmt, ap);
    va_end(ap);
    size_t length = (size_t)used + (more > 0 ? (size_t)more : 0);
    if (length > sizeof line - 2) {
        length = sizeof line - 2;
    }
    line[length++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, length);
    (void)ignored;
}
