/* Errors. Functions that can fail return int: 0, or one of the negative codes of err.def. Text for
 * people goes into a caller-supplied struct err, always the last parameter, which may be NULL when
 * nobody reads it. The first error wins: err_set on an err that already holds a code only happens
 * through err_wrap. */
#ifndef LIB_ERR_H
#define LIB_ERR_H

#include <stdarg.h>

enum err_code {
    ERR_OK = 0,
#define X(name, status, text) ERR_POS_##name,
#include "lib/err.def"
#undef X
    ERR_COUNT, /* codes are over -ERR_COUNT */
#define X(name, status, text) ERR_##name = -ERR_POS_##name,
#include "lib/err.def"
#undef X
};

struct err {
    int code;       /* 0 when nothing went wrong */
    char text[512]; /* what failed: why (what to do) */
};

/* Fills *err (when not NULL) and returns code, so that `return err_set(err, ERR_X, ...)` is one
 * statement. */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The same from errno: ENOSPC, EDQUOT become ERR_NOSPACE, ENOENT ERR_NOT_FOUND, EACCES, EPERM
 * ERR_DENIED, EEXIST ERR_EXISTS, the rest ERR_IO; appends ": strerror". errno is left as it was. */
int err_set_errno(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Prepends "context: " to the text, keeps the code, returns it. */
int err_wrap(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The general text and the process exit status of a code. */
const char *err_text(int code);
int err_exit_status(int code);

/* Returns upward on failure. */
#define TRY(expr)                                                                                  \
    do {                                                                                           \
        int try_rc_ = (expr);                                                                      \
        if (try_rc_ != 0) {                                                                        \
            return try_rc_;                                                                        \
        }                                                                                          \
    } while (0)
/* Sets the local `rc` and jumps to the clean-up label on failure. */
#define TRY_GOTO(expr, label)                                                                      \
    do {                                                                                           \
        rc = (expr);                                                                               \
        if (rc != 0) {                                                                             \
            goto label;                                                                            \
        }                                                                                          \
    } while (0)

#endif
