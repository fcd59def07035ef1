#include "trainer/agree.h"

#include <stdint.h>
#include <stdlib.h>

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
