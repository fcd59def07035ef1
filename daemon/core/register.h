/* Registration of workers; see register.c. */
#ifndef DAEMON_CORE_REGISTER_H
#define DAEMON_CORE_REGISTER_H

#include "daemon/core/state.h"

void node_register(struct core *core, const struct input *in);
/* Puts an accelerator into its node's list. */
void node_add_gpu(struct node *node, struct gpu *gpu);

#endif
