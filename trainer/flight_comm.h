/* Communicators that write down what they are asked for (proto/flight.h). */
#ifndef TRAINER_FLIGHT_COMM_H
#define TRAINER_FLIGHT_COMM_H

#include "lib/err.h"
#include "trainer/comm.h"

struct flight;

/* Makes and maps dir/flight-<rank>.bin. */
int flight_open(struct flight **f, const char *dir, uint32_t rank, uint32_t world, struct err *err);
void flight_close(struct flight *f); /* after the communicators; the file stays. NULL is fine */
/* The same communicator, written down as group `name`. Takes over `inner`. One that is no group
 * (size 1), no recorder, or more groups than the file has place for: `inner` itself. Any thread may
 * use it as it may use `inner`. */
struct comm *flight_comm(struct flight *f, struct comm *inner, const char *name);

#endif
