/* Nodes that the coordinator itself takes out of service: drained in its own name, with the reason,
 * until somebody resumes them. */
#ifndef DAEMON_CORE_QUARANTINE_H
#define DAEMON_CORE_QUARANTINE_H

#include "daemon/core/state.h"

/* Who drained a node that nobody did. */
#define QUARANTINE_USER "dsd"

/* On suspicion; not when a tenth of the nodes, or the one that is allowed in a small cluster, is
 * drained so already: then an event says that somebody has to look. */
void quarantine_suspect(struct core *core, struct node *node, const char *why);
/* Processes of an attempt survive KILL there. The attempt goes on without that part, and the node
 * is fenced until they are gone, and then drained: it wants a reboot. */
void quarantine_stuck(struct core *core, struct attempt_node *an, const char *what);

#endif
