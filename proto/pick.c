#include "proto/pick.h"

#include <string.h>

#include "lib/clock.h"

const json_t *pick(const json_t *object, const char *path)
{
    while (object != NULL) {
        size_t len = strcspn(path, ".");
        object = json_object_getn(object, path, len);
        if (path[len] == 0) {
            break;
        }
        path += len + 1;
    }
    return json_is_null(object) ? NULL : object;
}

int64_t pick_int(const json_t *object, const char *path)
{
    return json_integer_value(pick(object, path));
}

uint64_t pick_count(const json_t *object, const char *path)
{
    int64_t value = pick_int(object, path);
    return value > 0 ? (uint64_t)value : 0;
}

const char *pick_text(const json_t *object, const char *path)
{
    const char *text = json_string_value(pick(object, path));
    return text != NULL ? text : "";
}

bool pick_time(const json_t *object, const char *path, int64_t *wall_ms)
{
    const char *text = json_string_value(pick(object, path));
    return text != NULL && clock_parse_utc(text, wall_ms);
}
