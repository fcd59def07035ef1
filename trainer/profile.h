/* Where the time of a step goes: a table of operations that passes every call on to another one and
 * notes how long it took and how much work it was. Not in the way unless asked for (DS_PROFILE in
 * the environment, `dstrain run --profile`). One thread at a time, like the tables themselves. */
#ifndef TRAINER_PROFILE_H
#define TRAINER_PROFILE_H

#include <stdbool.h>
#include <stdint.h>

#include "trainer/op.h"

bool profile_wanted(void);
/* The table to use instead of op; op is borrowed for ever. One profile a process. */
const struct op_table *profile_wrap(const struct op_table *op);
/* A step of this length is over. The first is left out: it touches memory for the first time. */
void profile_step(int64_t ns);
/* The table for people, on stderr; nothing when no step was counted. */
void profile_print(void);

/* The most memory this process ever had (resident), in bytes. */
uint64_t profile_memory_peak(void);

#endif
