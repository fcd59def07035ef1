/* Each fuzz_<target>.c defines this one function; libFuzzer calls it with what it made up, replay.c
 * with the committed corpus. It returns 0, or ends the process where a property does not hold. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#endif
