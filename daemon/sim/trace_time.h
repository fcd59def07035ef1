/* Times as traces write them. */
#ifndef DAEMON_SIM_TRACE_TIME_H
#define DAEMON_SIM_TRACE_TIME_H

#include <stdbool.h>
#include <stddef.h>

/* The unit that ends a column's title, as in `submit_ms`, `duration (min)`, `elapsed[h]`: seconds
 * of one, and the title is cut before it. 0: it names none. */
double trace_time_unit(char *title);

/* A point in time: 2024-01-31 12:00:00, with T, fractions, Z, UTC or +08:00. */
bool trace_time_date(const char *text, double *seconds);
/* A length: D-HH:MM:SS, `D days HH:MM:SS`, HH:MM:SS, MM:SS, 90m, 1h30m. */
bool trace_time_length(const char *text, double *seconds);

#endif
