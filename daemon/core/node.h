/* Nodes: registration, leases, draining, and what their idle accelerators are booked as.
 *
 *          register                 silent, nothing ran there
 *   (new) ----------> UP <-------------------------------------> DOWN
 *                     |^   silent with ranks, or ranks nobody owns
 *                     |'---------------------------------------> FENCING   back when the last such
 * rank is known to be gone drain v  nothing left DRAINING ----------> DRAINED `by_user` is set
 * while an operator wants it drained, in whatever state
 *
 * A silent node keeps its state until its lease ends, and longer while a job with ranks on it still
 * makes steps: unreachable is not failed. */
#ifndef DAEMON_CORE_NODE_H
#define DAEMON_CORE_NODE_H

#include "daemon/core/state.h"

/* Inputs. */
void node_heartbeat(struct core *core, const struct input *in);
void node_gone(struct core *core, const struct input *in);
void node_drain(struct core *core, const struct input *in);
void node_resume(struct core *core, const struct input *in);
void node_timer(struct core *core, uint64_t id);

/* A sign of life: renews the lease. */
void node_seen(struct core *core, struct node *node);
/* Sets the timer of a node's lease. */
void node_watch(struct core *core, struct node *node);
/* Brings the state and the meters of free accelerators up to date after ranks there came or went.
 */
void node_settle(struct core *core, struct node *node);
/* Takes an accelerator back from its allocation; kept_ms as in meter_switch. */
void node_free_gpu(struct core *core, struct gpu *gpu, int64_t kept_ms);
/* A worker says that an attempt which is not its any more has ended there. */
/* Ranks of an attempt that is over still run there: until they ended it is fenced. */
void node_add_leftover(struct node *node, uint64_t job, uint64_t epoch);
void node_leftover_ended(struct core *core, struct node *node, uint64_t job, uint64_t epoch);

/* Connected, UP, and nothing there that should not be. */
bool node_is_usable(const struct node *node);
/* There and in order. */
bool gpu_is_well(const struct gpu *gpu);
bool gpu_is_free(const struct gpu *gpu);
uint32_t node_free_gpus(const struct node *node);
/* Counts its accelerators again after one changed. */
void node_recount(struct node *node);
/* Keeps it beside the gang of a job; 0: gives it back. */
void node_set_spare(struct core *core, struct node *node, uint64_t job);
/* Gives back all spares of a job. */
void node_free_spares(struct core *core, uint64_t job);
/* Accelerators it has when nothing runs there, whatever its state. */
uint32_t node_capacity(const struct node *node);

#endif
