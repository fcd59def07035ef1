/* Random numbers for tests: the seed is printed and TEST_SEED repeats a run. */
#ifndef TESTS_UNIT_RANDOM_H
#define TESTS_UNIT_RANDOM_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* splitmix64 */
static uint64_t random_state;

static inline uint64_t random_next(void)
{
    uint64_t z = (random_state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* 0 <= result < limit */
static inline uint64_t random_below(uint64_t limit)
{
    return random_next() % limit;
}

static inline int random_one_in(uint64_t n)
{
    return random_below(n) == 0;
}

static inline void random_start(const char *test)
{
    const char *given = getenv("TEST_SEED");
    random_state = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    printf("%s: seed %llu (TEST_SEED repeats it)\n", test, (unsigned long long)random_state);
}

#endif
