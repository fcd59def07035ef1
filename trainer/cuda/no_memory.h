/* What is said when device memory has run out. */
#ifndef TRAINER_CUDA_NO_MEMORY_H
#define TRAINER_CUDA_NO_MEMORY_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* plan: one sentence on what the rank needs and what lowers it (op_plugin.h), borrowed; "" at
 * first. */
void no_memory_plan(const char *plan);
/* One line, then the process ends with the contract's status: it does not return. wanted: bytes in
 * one piece, of which `left` of `all` are free. */
void no_memory(size_t wanted, size_t left, size_t all);

#ifdef __cplusplus
}
#endif

#endif
