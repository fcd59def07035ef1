/* What systemd wants to hear from a service of Type=notify: messages to $NOTIFY_SOCKET. Silent when
 * there is none. */
#ifndef DAEMON_NOTIFY_H
#define DAEMON_NOTIFY_H

void notify_ready(void);
void notify_stopping(void);
/* At least every half of $WATCHDOG_USEC; called once a second. */
void notify_watchdog(void);

#endif
