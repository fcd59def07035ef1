#include "trainer/cuda/no_memory.h"

#include <stdio.h>
#include <stdlib.h>

#define EXIT_NO_MEMORY 71

static const char *plan_text = "";

void no_memory_plan(const char *plan)
{
    plan_text = plan;
}

void no_memory(size_t wanted, size_t left, size_t all)
{
    const double gb = 1e9;
    fprintf(stderr,
            "out of device memory: a part of the model wants %.3f GB in one piece, %.3f of %.3f GB "
            "are free%s%s\n",
            (double)wanted / gb, (double)left / gb, (double)all / gb, plan_text[0] != 0 ? "; " : "",
            plan_text);
    exit(EXIT_NO_MEMORY);
}
