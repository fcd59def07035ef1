/* Checkpoints: two-phase, fenced by the epoch.
 *
 *   WRITING ---> COMMITTED ---> DELETED      all ranks' shards are durable -> committed, in the
 * same transaction |             '--------> CORRUPT      a verification failed; kept for
 * inspection, never loaded
 *      '-----------------------> DELETED     its attempt ended before it was whole
 *
 * `published`: the manifest is in place. `removing`: DELETED, but the files are not yet reported
 * gone. Both are ordered again until acknowledged. The newest committed checkpoint of a job is
 * never deleted. */
#ifndef DAEMON_CORE_CHECKPOINT_H
#define DAEMON_CORE_CHECKPOINT_H

#include "daemon/core/state.h"

#define CKPT_FILE_MAX   127
#define CKPT_LAYOUT_MAX 65536
/* Kept beyond checkpoint.keep, so that a guard can go back. */
#define CKPT_FOR_GUARD_MAX 4

/* Inputs. */
void ckpt_shard_report(struct core *core, const struct input *in);
void ckpt_verified(struct core *core, const struct input *in);
void ckpt_published(struct core *core, const struct input *in);
void ckpt_removed(struct core *core, const struct input *in);
void ckpt_timer(struct core *core, uint64_t id);

/* Committed, and not given up. */
bool ckpt_is_good(const struct ckpt *ckpt);
/* Those of attempts up to this epoch, of later steps, are never resumed from. */
void ckpt_give_up(struct core *core, struct job *job, uint64_t epoch, int64_t back_to,
                  const char *why);
/* After a commit: what need not stay is removed. */
void ckpt_retain(struct core *core, struct job *job);
/* The newest good one is the job's. */
void ckpt_set_newest(struct core *core, struct job *job);
/* Orders it; the row stays, DELETED. */
void ckpt_remove_files(struct core *core, struct ckpt *ckpt, const char *why);
/* The newest good one of the job, in the order of training; NULL when there is none. */
struct ckpt *ckpt_newest(const struct job *job);
/* The newest one of this epoch. */
struct ckpt *ckpt_newest_of_epoch(const struct job *job, uint64_t epoch);
/* Never to be loaded again. */
void ckpt_mark_corrupt(struct core *core, struct ckpt *ckpt, const char *reason);
/* An attempt is over: what it left unfinished is removed. */
void ckpt_drop_unfinished(struct core *core, struct job *job, uint64_t epoch);
/* A new epoch begins: deleted ones leave memory. Until then they are remembered, for a rank of the
 * old epoch may report its shard again after the checkpoint is gone. */
void ckpt_epoch_over(struct core *core, struct job *job);
/* The job is about to leave memory: its checkpoints stay. */
void ckpt_detach_job(struct core *core, struct job *job);
/* Sends again to this node what it is the one to carry out. */
void ckpt_redrive(struct core *core, const struct node *node);
/* A node is gone: what it had not acknowledged goes to another one. */
void ckpt_reorder(struct core *core);

/* <root>/job-NNNNNN-<submitted, hex>/tTTTTT-eEEEEE: the only folder that this attempt may write to.
 * text: PATH_MAX. */
void ckpt_attempt_dir(const struct core *core, const struct job *job, const struct attempt *attempt,
                      char *text, size_t text_bytes);
/* The canonical manifest; the effect list owns it. */
const char *ckpt_manifest(struct core *core, const struct ckpt *ckpt);
/* Puts a loaded or new row into memory; job may be NULL. */
struct ckpt *ckpt_insert(struct core *core, struct ckpt *ckpt, struct job *job);
void ckpt_destroy(void *ckpt);

#endif
