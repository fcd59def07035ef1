/* The NVIDIA driver, looked at before anything of CUDA is initialised, to say in one line why there
 * is no GPU to compute on. */
#ifndef TRAINER_CUDA_DRIVER_H
#define TRAINER_CUDA_DRIVER_H

#include <stdint.h>

#include "lib/err.h"

/* Whether devices 0 to count - 1 are there and this back end is built for them. ERR_CONFIG. */
int driver_check(uint32_t count, struct err *err);

#endif
