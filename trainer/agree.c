#include "trainer/agree.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

int agree(struct comm *c, int rc, const char *what, struct err *err)
{
    int32_t mine = rc;
    int32_t *all = mem_alloc_array(c->size, sizeof *all);
    struct err comm_err = {0};
    int comm_rc = c->ops->all_gather(c, &mine, all, sizeof mine, &comm_err);
    if (rc == 0 && comm_rc != 0) {
        rc = err_set(err, comm_rc, "%s: %s", what, comm_err.text);
    }
    for (uint32_t r = 0; rc == 0 && r < c->size; r++) {
        if (all[r] != 0) {
            rc = err_set(err, all[r], "%s: rank %u failed: %s (see its log)", what, r,
                         err_text(all[r]));
        }
    }
    free(all);
    return rc;
}

int agree_text(struct comm *c, char **text, struct err *err)
{
    uint64_t bytes = c->rank == 0 && *text != NULL ? strlen(*text) + 1 : 0;
    TRY(c->ops->broadcast(c, &bytes, sizeof bytes, 0, err));
    if (c->rank != 0) {
        *text = bytes > 0 ? mem_alloc(bytes) : NULL;
    }
    return bytes > 0 ? c->ops->broadcast(c, *text, bytes, 0, err) : 0;
}
