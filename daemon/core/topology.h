/* Where nodes stand: zone, rack, leaf switch. The policy says it by lists of names; it is kept with
 * the nodes. */
#ifndef DAEMON_CORE_TOPOLOGY_H
#define DAEMON_CORE_TOPOLOGY_H

#include "daemon/core/state.h"

/* Brings a node's place up to date with the policy; what the policy does not say stays. */
void topology_apply(struct core *core, struct node *node);
void topology_fini(struct core *core);

/* The zone, rack or leaf of a node; "" when it is not known, or for PLACEMENT_ANY. */
const char *topology_place(const struct node *node, enum placement level);
/* Neighbours in rank order whose leaf switches differ. */
uint32_t topology_crossings(struct node *const *nodes, uint32_t count);
/* Different leaf switches of these. */
uint32_t topology_leaves(struct node *const *nodes, uint32_t count);

#endif
