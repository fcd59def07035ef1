/* Ctrl-C: a word on what goes on without us, the terminal as it was, exit status 130 (143 for
 * TERM). */
#ifndef CTL_INTERRUPT_H
#define CTL_INTERRUPT_H

void interrupt_init(void);
/* What to say on stderr when it comes; replaces the previous text. "" for nothing. */
void interrupt_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Bytes for the terminal first, such as "show the cursor"; a string literal or NULL. */
void interrupt_restore(const char *bytes);

#endif
