/* The handler itself writes and leaves: nothing here holds state that would need an orderly end,
 * and whatever call the program is blocked in need not know about signals. */
#include "ctl/interrupt.h"

#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char texts[2][1024];
static _Atomic(const char *) current;
static _Atomic(const char *) restore;

static void put(int fd, const char *text)
{
    if (text != NULL && text[0] != 0) {
        ssize_t ignored = write(fd, text, strlen(text));
        (void)ignored;
    }
}

static void handle(int signal_number)
{
    put(STDOUT_FILENO, atomic_load(&restore));
    put(STDERR_FILENO, atomic_load(&current));
    _exit(128 + signal_number);
}

void interrupt_init(void)
{
    struct sigaction action = {.sa_handler = handle};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

void interrupt_say(const char *fmt, ...)
{
    char *text = atomic_load(&current) == texts[0] ? texts[1] : texts[0];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof texts[0], fmt, ap);
    va_end(ap);
    atomic_store(&current, text);
}

void interrupt_restore(const char *bytes)
{
    atomic_store(&restore, bytes);
}
