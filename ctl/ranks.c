#include "ctl/ranks.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

static bool take_number(const char **c, uint64_t *value)
{
    if (**c < '0' || **c > '9') {
        return false;
    }
    for (*value = 0; **c >= '0' && **c <= '9'; (*c)++) {
        *value = *value < UINT32_MAX ? *value * 10 + (uint64_t)(**c - '0') : UINT32_MAX;
    }
    return true;
}

static int mark(const char *text, uint32_t world, bool *wanted, struct err *err)
{
    const char *c = text;
    for (;;) {
        uint64_t first = 0;
        bool ok = take_number(&c, &first);
        uint64_t last = first;
        if (ok && *c == '-') {
            c++;
            ok = take_number(&c, &last) && last >= first;
        }
        if (!ok || (*c != ',' && *c != 0)) {
            return err_set(err, ERR_USAGE, "'%s' is no list of ranks (write 0, or 0,2-3, or all)",
                           text);
        }
        if (last >= world) {
            return err_set(err, ERR_NOT_FOUND,
                           "there is no rank %llu: this attempt has ranks 0 to %u",
                           (unsigned long long)last, world - 1);
        }
        for (uint64_t rank = first; rank <= last; rank++) {
            wanted[rank] = true;
        }
        if (*c++ == 0) {
            return 0;
        }
    }
}

int ranks_parse(const char *text, uint32_t world, uint32_t **ranks, size_t *count, struct err *err)
{
    bool *wanted = mem_alloc_array(world, sizeof *wanted);
    *ranks = NULL;
    *count = 0;
    int rc = 0;
    if (strcmp(text, "all") == 0) {
        memset(wanted, true, world * sizeof *wanted);
    } else {
        rc = mark(text, world, wanted, err);
    }
    if (rc == 0) {
        *ranks = mem_alloc_array(world, sizeof **ranks);
        for (uint32_t rank = 0; rank < world; rank++) {
            if (wanted[rank]) {
                (*ranks)[(*count)++] = rank;
            }
        }
    }
    free(wanted);
    return rc;
}
