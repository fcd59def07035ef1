#include "ctl/watch.h"

#include <string.h>

#include "ctl/interrupt.h"
#include "ctl/text.h"
#include "lib/clock.h"
#include "proto/format.h"

#define CURSOR_HOME   "\033[H"
#define CURSOR_HIDE   "\033[?25l"
#define CURSOR_SHOW   "\033[?25h"
#define CLEAR_SCREEN  "\033[2J"
#define CLEAR_TO_EOL  "\033[K"
#define CLEAR_TO_EOS  "\033[J"
#define COLOURS_RESET "\033[0m"

static void append_line(struct buf *out, const char *line, size_t len, const struct terminal *t)
{
    size_t fits = text_cut(line, len, t->columns);
    buf_append(out, line, fits);
    buf_append_str(out, fits < len ? COLOURS_RESET : "");
    buf_append_str(out, CLEAR_TO_EOL);
}

static size_t count_lines(const char *page)
{
    size_t lines = 0;
    for (const char *c = page; *c != 0; c += strcspn(c, "\n"), c += *c == '\n') {
        lines++;
    }
    return lines;
}

void watch_frame(struct buf *out, const char *heading, const char *trouble, const char *page,
                 const struct terminal *t)
{
    size_t lines = count_lines(page);
    size_t room = t->rows - 2;
    size_t shown = lines <= room ? lines : room - 1;
    buf_append_str(out, CURSOR_HOME);
    append_line(out, heading, strlen(heading), t);
    buf_append_str(out, "\n");
    append_line(out, trouble, strlen(trouble), t);
    for (size_t i = 0; i < shown; i++) {
        size_t len = strcspn(page, "\n");
        buf_append_str(out, "\n");
        append_line(out, page, len, t);
        page += len + (page[len] == '\n');
    }
    if (shown < lines) {
        buf_printf(out, "\n(%zu more lines)" CLEAR_TO_EOL, lines - shown);
    }
    buf_append_str(out, CLEAR_TO_EOS);
}

static void append_heading(struct buf *out, const struct ctl *ctl, int64_t interval_ms)
{
    const struct command *c = ctl->args.command;
    buf_append_str(out, "every ");
    format_duration(out, interval_ms);
    buf_printf(out, ": dsctl %s %s", c->noun, c->verb);
    for (size_t i = 0; i < ctl->args.word_count; i++) {
        buf_append_str(out, " ");
        text_append_clean(out, ctl->args.words[i]);
    }
    buf_append_str(out, "   ");
    format_time(out, clock_wall_ms());
}

static int show_on_terminal(struct ctl *ctl, int64_t interval_ms, struct buf *page,
                            const struct err *trouble, bool first, struct err *err)
{
    struct buf screen = {0};
    struct buf heading = {0};
    struct buf note = {0};
    terminal_measure(&ctl->output.terminal, ctl->out);
    append_heading(&heading, ctl, interval_ms);
    terminal_paint(&ctl->output.terminal, &note, COLOUR_RED, trouble->text);
    buf_append_str(&screen, first ? CURSOR_HIDE CLEAR_SCREEN : "");
    watch_frame(&screen, buf_cstr(&heading), buf_cstr(&note), buf_cstr(page),
                &ctl->output.terminal);
    buf_fini(&heading);
    buf_fini(&note);
    return ctl_write(ctl, &screen, err);
}

int watch_view(struct ctl *ctl, int64_t interval_ms, struct err *err)
{
    bool on_terminal = ctl->output.terminal.is_tty;
    struct buf page = {0};
    struct buf fresh = {0};
    bool away = false;
    int rc = 0;
    if (on_terminal) {
        interrupt_restore(CURSOR_SHOW "\n");
    }
    for (bool first = true;; first = false) {
        struct err trouble = {0};
        terminal_measure(&ctl->output.terminal, ctl->out);
        buf_reset(&fresh);
        rc = ctl->args.command->view(ctl, &fresh, &trouble);
        if (rc != 0 && (first || !ctl->session.lost)) {
            *err = trouble;
            goto done;
        }
        if (rc == 0) {
            struct buf old = page;
            page = fresh;
            fresh = old;
        }
        if (!on_terminal && rc != 0 && !away) {
            ctl_note(ctl, "%s; trying again", trouble.text);
        }
        away = rc != 0;
        TRY_GOTO(on_terminal ? show_on_terminal(ctl, interval_ms, &page, &trouble, first, err)
                             : ctl_write(ctl, &page, err),
                 done);
        clock_sleep_ms(interval_ms);
    }
done:
    if (on_terminal) {
        interrupt_restore(NULL);
        fputs(CURSOR_SHOW, ctl->out);
        fflush(ctl->out);
    }
    buf_fini(&page);
    buf_fini(&fresh);
    return rc;
}
