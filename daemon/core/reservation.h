/* Nodes set aside for a time.
 *
 *   PLANNED --> ACTIVE --> OVER        PLANNED, ACTIVE --> CANCELLED
 *
 * Maintenance: jobs that would still run when it begins are not started there; what runs there all
 * the same is asked to save and goes back to the queue; then the nodes are MAINT until it ends.
 * A reservation for a user or account is the same for the jobs of all others, but its nodes stay
 * UP. */
#ifndef DAEMON_CORE_RESERVATION_H
#define DAEMON_CORE_RESERVATION_H

#include "daemon/core/state.h"

/* Inputs. */
void reservation_create(struct core *core, const struct input *in);
void reservation_cancel(struct core *core, const struct input *in);
void reservation_timer(struct core *core, uint64_t id);

bool reservation_is_live(const struct reservation *r);
/* Whether the job may use its nodes meanwhile. */
bool reservation_admits(const struct reservation *r, const struct job *job);
/* A node has registered for the first time: it may be named by some. */
void reservation_add_node(struct core *core, struct node *node);
void reservation_load(struct core *core, const struct reservation_row *row);
/* After all rows are there. */
void reservation_load_done(struct core *core);
void reservation_fini(struct core *core);

#endif
