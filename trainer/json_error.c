#include "trainer/json_error.h"

#include <stdio.h>

/* The last key that was read ends where the error is, with its quote. */
static int key_before(const char *json, int end)
{
    int at = end - 2;
    while (at > 0 && (json[at] != '"' || json[at - 1] == '\\')) {
        at--;
    }
    return at;
}

void json_error_text(char *out, size_t bytes, const json_error_t *where, const char *json)
{
    int end = where->position;
    if (json_error_code(where) != json_error_duplicate_key || end < 2 || json[end - 1] != '"') {
        snprintf(out, bytes, "%s", where->text);
        return;
    }
    int at = key_before(json, end);
    snprintf(out, bytes, "%.*s is there twice", end - at < 200 ? end - at : 200, json + at);
}
