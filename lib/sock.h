/* Stream sockets for programs without an event loop. */
#ifndef LIB_SOCK_H
#define LIB_SOCK_H

#include <stdint.h>

#include "lib/err.h"

/* address: a path (has a '/'), or host:port ([::1]:7000). *fd is non-blocking and close-on-exec.
 * ERR_UNREACHABLE when nobody listens or answers in time, ERR_USAGE when the address makes no
 * sense. timeout_ms < 0 waits as long as the system does. */
int sock_connect(int *fd, const char *address, int64_t timeout_ms, struct err *err);
/* Waits for poll(2) events on fd until deadline_ms (clock_boot_ms; < 0 for ever). Returns them, 0
 * at the deadline. */
int sock_wait(int fd, short events, int64_t deadline_ms);

#endif
