#include "daemon/core/quarantine.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/core/attempt.h"
#include "daemon/core/node.h"

static void drain(struct core *core, struct node *node, const char *why)
{
    core_event(core, "node.quarantined", 0, 0, node->row.id,
               "node %s is drained: %s (dsctl node resume %s takes it back)", node->row.name, why,
               node->row.name);
    if (node->row.by_user == NULL) { /* else somebody drained it before, for a reason of theirs */
        row_set_text(&node->row.by_user, QUARANTINE_USER);
        row_set_text(&node->row.reason, why);
        core_mark(core, TABLE_NODE, &node->row);
    }
}

void quarantine_suspect(struct core *core, struct node *node, const char *why)
{
    size_t drained = 0;
    for (size_t i = 0; i < core->node_count; i++) {
        const char *by = core->nodes[i]->row.by_user;
        drained += by != NULL && strcmp(by, QUARANTINE_USER) == 0;
    }
    size_t most = core->node_count / 10 > 1 ? core->node_count / 10 : 1;
    if (drained >= most) {
        core_event(core, "node.suspect", 0, 0, node->row.id,
                   "node %s is suspect and is not drained, as %zu of %zu nodes are already: %s",
                   node->row.name, drained, core->node_count, why);
        return;
    }
    drain(core, node, why);
    node_settle(core, node);
}

void quarantine_stuck(struct core *core, struct attempt_node *an, const char *what)
{
    struct node *node = an->node;
    char why[400];
    snprintf(why, sizeof why, "job %" PRIu64 ": %.300s; reboot it", an->row.job_id, what);
    drain(core, node, why);
    node_add_leftover(node, an->row.job_id, an->row.epoch);
    attempt_lost(core, an, node->seen_ms, why);
}
