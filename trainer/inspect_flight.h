/* `dstrain inspect` of flight recorders (proto/flight.h). */
#ifndef TRAINER_INSPECT_FLIGHT_H
#define TRAINER_INSPECT_FLIGHT_H

#include <stdbool.h>

#include "lib/err.h"

/* Of a folder: has it flight-<rank>.bin files? Of a file: is it one? */
bool inspect_is_flight(const char *path, bool is_folder);
/* A folder: what the recorders of all ranks say of each other, then the last calls of each; a file:
 * all its calls. */
int inspect_flight(const char *path, bool is_folder, struct err *err);

#endif
