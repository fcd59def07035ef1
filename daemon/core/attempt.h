/* Attempts: one try of a gang, all ranks or none.
 *
 *   attempt:      STARTING ---> RUNNING ---> STOPPING ---> ENDED      RUNNING: every node has
 * started its ranks on a node:    ORDERED -> ACCEPTED -> STARTED -> ENDED             from
 * cumulative reports; only grows any of them  -> LOST               its lease ended, or it came
 * back without the attempt
 *
 * The first sign of an end that was not asked for makes the attempt `failing`: the other nodes are
 * ordered to stop. Accelerators are released node by node; when every node is ENDED or LOST,
 * recover.h says what becomes of the job. */
#ifndef DAEMON_CORE_ATTEMPT_H
#define DAEMON_CORE_ATTEMPT_H

#include "daemon/core/state.h"

/* A cumulative report from a node, on its own or within a registration. */
void attempt_report(struct core *core, const struct input *in);
void attempt_apply_report(struct core *core, struct attempt_node *an,
                          const struct input_attempt_report *report);
/* A report about an attempt that is not this node's (any more): it is told to stop or to forget it.
 */
void attempt_refuse_report(struct core *core, struct node *node,
                           const struct input_attempt_report *report);

/* Starts the next attempt of a job on these nodes, in rank order. */
void attempt_start(struct core *core, struct job *job, struct node *const *nodes,
                   uint32_t node_count);
/* Ends an attempt on purpose: TERM, grace, KILL. cause: one of job.h. For those after which the job
 * goes on, it gets the time that a checkpoint takes. */
void attempt_stop(struct core *core, struct attempt *attempt, const char *cause);
/* A worker has been told to stop it. */
void attempt_stop_acked(struct core *core, const struct input *in);
/* A checkpoint of it is committed: what it took is learnt. */
void attempt_saved(struct core *core, struct attempt *attempt, int64_t took_ms);
/* How long it may take to save, by what was measured. */
int64_t attempt_save_ms(const struct core *core, const struct job *job);
/* Until when the nodes that its ended part leaves wait for the rest of the gang; 0: they do not. */
int64_t attempt_gathers_until_ms(const struct attempt *attempt);
/* When it will have ended at the latest, or is expected to if the job has no time limit. */
int64_t attempt_end_ms(const struct core *core, const struct attempt *attempt);
/* The node is given up for this attempt; seen_ms: its last sign of life. */
void attempt_lost(struct core *core, struct attempt_node *an, int64_t seen_ms, const char *why);
/* The node's worker has registered and does not list the attempt. */
void attempt_not_listed(struct core *core, struct attempt_node *an);
/* Sends again what the worker has to do about its part, from its state. */
void attempt_redrive(struct core *core, struct attempt_node *an);

/* ORDERED or ACCEPTED or STARTED. */
bool attempt_node_is_live(const struct attempt_node *an);
/* The part of the live attempt (job, epoch) on this node, or NULL. */
struct attempt_node *attempt_find_node(const struct core *core, const struct node *node,
                                       uint64_t job, uint64_t epoch);
/* n1,n2,n3 +17 */
void attempt_nodes_text(const struct attempt *attempt, char *text, size_t text_bytes);
/* Every rank has exited with 0. */
bool attempt_succeeded(const struct attempt *attempt);
/* Puts an attempt's node into or out of the node's list of live parts. */
void attempt_node_link(struct attempt_node *an);
void attempt_node_unlink(struct attempt_node *an);
/* Makes the arrays for an attempt on node_count nodes of per_node ranks each. */
struct attempt *attempt_create(struct job *job, uint32_t node_count, uint32_t gpus_per_node);
void attempt_destroy(void *attempt);

#endif
