#include "lib/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

__attribute__((format(printf, 3, 0))) static void fill(struct err *err, int code, const char *fmt,
                                                       va_list ap)
{
    if (err != NULL) {
        err->code = code;
        vsnprintf(err->text, sizeof err->text, fmt, ap);
    }
}

int err_set(struct err *err, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fill(err, code, fmt, ap);
    va_end(ap);
    return code;
}

static int code_of_errno(int e)
{
    switch (e) {
    case ENOSPC:
    case EDQUOT:
        return ERR_NOSPACE;
    case ENOENT:
        return ERR_NOT_FOUND;
    case EACCES:
    case EPERM:
        return ERR_DENIED;
    case EEXIST:
        return ERR_EXISTS;
    case ENOMEM:
        return ERR_NOMEM;
    default:
        return ERR_IO;
    }
}

int err_set_errno(struct err *err, const char *fmt, ...)
{
    int saved = errno;
    int code = code_of_errno(saved);
    va_list ap;
    va_start(ap, fmt);
    fill(err, code, fmt, ap);
    va_end(ap);
    if (err != NULL) {
        size_t used = strlen(err->text);
        snprintf(err->text + used, sizeof err->text - used, ": %s", strerror(saved));
    }
    errno = saved;
    return code;
}

int err_wrap(struct err *err, const char *fmt, ...)
{
    if (err == NULL) {
        return ERR_FAILED;
    }
    char old[sizeof err->text];
    memcpy(old, err->text, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    size_t used = strlen(err->text);
    snprintf(err->text + used, sizeof err->text - used, ": %s", old);
    return err->code;
}

static const struct {
    int status;
    const char *text;
} table[] = {
    {0, "ok"},
#define X(name, status, text) {status, text},
#include "lib/err.def"
#undef X
};

#define TABLE_COUNT ((int)(sizeof table / sizeof table[0]))

const char *err_text(int code)
{
    return code <= 0 && -code < TABLE_COUNT ? table[-code].text : "unknown error";
}

int err_exit_status(int code)
{
    return code <= 0 && -code < TABLE_COUNT ? table[-code].status : 1;
}
