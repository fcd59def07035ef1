/* `dstrain inspect`: what is in a checkpoint folder, a safetensors file or the flight
 * recorders of ranks. */
#ifndef TRAINER_INSPECT_H
#define TRAINER_INSPECT_H

#include <stdbool.h>

#include "lib/err.h"

/* Prints to stdout. verify: also reads every shard and checks size and both digests against the
 * manifest; of a Hugging Face folder every tensor, as an import would. */
int inspect(const char *path, bool verify, struct err *err);

#endif
