#include "ctl/ctl.h"

#include <locale.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ctl/complete.h"
#include "ctl/help.h"
#include "ctl/interrupt.h"
#include "ctl/watch.h"
#include "lib/log.h"
#include "lib/version.h"

#define WATCH_MS 2000

int ctl_exit_status(int code)
{
    int status = err_exit_status(code);
    return status <= 8 ? status : 1;
}

void ctl_note(const struct ctl *ctl, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("dsctl: ", ctl->errors);
    vfprintf(ctl->errors, fmt, ap);
    fputs("\n", ctl->errors);
    va_end(ap);
}

int ctl_confirm(const struct ctl *ctl, const char *question, struct err *err)
{
    char answer[16] = "";
    if (args_has(&ctl->args, "yes") || !isatty(STDIN_FILENO) || !isatty(STDERR_FILENO)) {
        return 0;
    }
    fprintf(ctl->errors, "%s [y/N] ", question);
    fflush(ctl->errors);
    if (fgets(answer, sizeof answer, stdin) != NULL && (answer[0] == 'y' || answer[0] == 'Y')) {
        return 0;
    }
    return err_set(err, ERR_FAILED, "nothing was done: the answer was no (--yes does not ask)");
}

int ctl_write(const struct ctl *ctl, struct buf *out, struct err *err)
{
    bool failed = (out->len > 0 && fwrite(out->data, 1, out->len, ctl->out) != out->len) ||
                  fflush(ctl->out) != 0;
    buf_fini(out);
    return failed ? err_set_errno(err, "cannot write the output") : 0;
}

static int run_view(struct ctl *ctl, struct err *err)
{
    int64_t interval_ms = WATCH_MS;
    struct buf page = {0};
    TRY(args_duration(&ctl->args, "watch", &interval_ms, err));
    if (args_has(&ctl->args, "watch")) {
        return watch_view(ctl, interval_ms, err);
    }
    int rc = ctl->args.command->view(ctl, &page, err);
    /* A view may fill a page and fail: the report of a failed check. */
    int written = ctl_write(ctl, &page, rc == 0 ? err : NULL);
    return rc != 0 ? rc : written;
}

static int run_command(struct ctl *ctl, struct err *err)
{
    const struct command *c = ctl->args.command;
    int64_t timeout_ms = 0;
    TRY(args_duration(&ctl->args, "timeout", &timeout_ms, err));
    TRY(output_init(&ctl->output, &ctl->args, ctl->out, err));
    session_init(&ctl->session, args_get(&ctl->args, "server"), timeout_ms, ctl->errors);
    log_init("dsctl", args_has(&ctl->args, "verbose") ? LOG_DEBUG : LOG_WARN);
    if (c->view != NULL) {
        return run_view(ctl, err);
    }
    if (args_has(&ctl->args, "watch")) {
        return err_set(err, ERR_USAGE,
                       "%s %s cannot be watched: --watch repeats commands that only read", c->noun,
                       c->verb);
    }
    return c->run(ctl, err);
}

static int run(struct ctl *ctl, int argc, char **argv, struct err *err)
{
    struct buf text = {0};
    TRY(args_parse(&ctl->args, argc, argv, err));
    if (ctl->args.help) {
        help_write(&text, &ctl->args);
    } else if (ctl->args.version) {
        buf_append_str(&text, "dsctl " DS_VERSION "\n");
    } else {
        return run_command(ctl, err);
    }
    return ctl_write(ctl, &text, err);
}

int ctl_main(int argc, char **argv, FILE *out, FILE *errors)
{
    struct ctl ctl = {.out = out, .errors = errors};
    struct err err = {0};
    setlocale(LC_CTYPE, "");
    tzset();
    interrupt_init();
    if (argc > 1 && strcmp(argv[1], COMPLETE_WORD) == 0) {
        complete(out, (const char *const *)argv + 2, (size_t)argc - 2);
        return 0;
    }
    int rc = run(&ctl, argc, argv, &err);
    fflush(out);
    if (rc != 0 && err.text[0] != 0) {
        ctl_note(&ctl, "%s", err.text);
    }
    session_fini(&ctl.session);
    args_fini(&ctl.args);
    return ctl_exit_status(rc);
}
