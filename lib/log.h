/* Logging: one line per fact to stderr, `time level subsystem: message key=value`. Colour only on a
 * terminal. The core never logs: its events are the log. */
#ifndef LIB_LOG_H
#define LIB_LOG_H

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* program: prefixed to every line; borrowed for ever. Default level LOG_INFO. */
void log_init(const char *program, enum log_level level);
/* "error", "warn", "info", "debug" -> level; -1 when it is none of them. */
int log_level_parse(const char *text);
void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)

#endif
