#include "lib/mem.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *checked(void *p)
{
    if (p == NULL) {
        static const char text[] =
            "out of memory (give the process more, or make the request smaller)\n";
        fputs(text, stderr);
        _Exit(71);
    }
    return p;
}

void *mem_alloc(size_t bytes)
{
    return checked(calloc(1, bytes > 0 ? bytes : 1));
}

void *mem_alloc_array(size_t count, size_t item_bytes)
{
    return checked(calloc(count > 0 ? count : 1, item_bytes > 0 ? item_bytes : 1));
}

void *mem_resize(void *old, size_t bytes)
{
    return checked(realloc(old, bytes > 0 ? bytes : 1));
}

char *mem_strdup(const char *text)
{
    return text == NULL ? NULL : checked(strdup(text));
}

char *mem_printf(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *text = NULL;
    int rc = vasprintf(&text, fmt, ap);
    va_end(ap);
    return checked(rc < 0 ? NULL : text);
}

void mem_grow(void **array, size_t *capacity, size_t count, size_t item_bytes)
{
    if (count <= *capacity) {
        return;
    }
    size_t wanted = *capacity < 8 ? 8 : *capacity;
    while (wanted < count) {
        wanted = wanted > SIZE_MAX / 2 ? count : wanted * 2;
    }
    if (wanted > SIZE_MAX / item_bytes) {
        checked(NULL);
    }
    *array = mem_resize(*array, wanted * item_bytes);
    *capacity = wanted;
}
