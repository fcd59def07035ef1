/* Who shares the cluster: queues, accounts, users, their quotas, and what each of them used.
 *
 * Use fades: what was used counts half after a half-life. A member (a user's part of an account)
 * has a row with the value as it stood at a time, and in memory the rate at which it grows now; the
 * value at any later time follows exactly, so the row is written only when the rate changes. */
#ifndef DAEMON_CORE_SHARE_H
#define DAEMON_CORE_SHARE_H

#include "daemon/core/state.h"

/* Inputs. */
void share_queue_set(struct core *core, const struct input *in);
void share_account_set(struct core *core, const struct input *in);
void share_quota_set(struct core *core, const struct input *in);
void share_quota_timer(struct core *core, uint64_t id);

/* NULL when there is none. */
struct queue *share_queue(const struct core *core, const char *name);
struct account *share_account(const struct core *core, const char *name);
struct member *share_find_member(const struct core *core, const char *account, const char *user);
struct lane *share_find_lane(const struct core *core, const struct queue *queue, const char *user);
/* Makes what is not there. */
struct member *share_member(struct core *core, const char *account, const char *user);
struct lane *share_lane(struct core *core, struct queue *queue, const char *user);

struct queue *share_queue_make(struct core *core, const char *name);
struct account *share_account_make(struct core *core, const char *name);

/* Whether somebody has said which queues there are. Until then a job may name any, and makes it. */
bool share_queues_are_given(const struct core *core);
/* The queues and accounts of the policy, and the queue `default`: makes what is missing, and brings
 * what nobody changed up to date. */
void share_apply_policy(struct core *core);
/* Ties a job to its queue, member and lane; makes them for a job of an old database. */
void share_bind(struct core *core, struct job *job);
void share_unbind(struct core *core, struct job *job);
/* Its attempt begins, and is over: counts jobs and nodes, and the rate of its member. */
void share_started(struct core *core, struct job *job);
void share_stopped(struct core *core, struct job *job);
/* The same counts, of a job that was loaded. */
void share_count(struct core *core, struct job *job);

/* The queue's weight is about to change. */
void share_reweigh(struct core *core, struct queue *queue, int64_t weight_milli);

/* What the member has used by now, faded, in accelerator-ms. */
double share_used(const struct core *core, const struct member *member);
bool share_quota_is_over(const struct core *core, const struct quota *quota);
/* Whether a job falls under it; class: of the job's priority. */
bool share_quota_covers(const struct core *core, const struct quota *quota, const struct job *job);
/* Nodes of running jobs that share this quota with the job. */
int64_t share_quota_used(const struct core *core, const struct quota *quota, const struct job *job);

/* Rows from the store; texts are taken over. */
void share_load_queue(struct core *core, const struct queue_row *row);
void share_load_account(struct core *core, const struct account_row *row);
void share_load_member(struct core *core, const struct fair_usage_row *row);
void share_load_quota(struct core *core, const struct quota_row *row);
void share_fini(struct core *core);

#endif
