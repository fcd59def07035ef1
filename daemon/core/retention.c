/* Which checkpoints are good to resume from, and which stay. */
#include "daemon/core/checkpoint.h"

bool ckpt_is_good(const struct ckpt *ckpt)
{
#ifdef MUTANT_guard_resumes_given_up
    return ckpt->row.state == CKPT_COMMITTED;
#endif
    return ckpt->row.state == CKPT_COMMITTED && !ckpt->row.given_up;
}

void ckpt_give_up(struct core *core, struct job *job, uint64_t epoch, int64_t back_to,
                  const char *why)
{
    for (size_t i = 0; i < job->ckpt_count; i++) {
        struct ckpt *ckpt = job->ckpts[i];
        bool there = ckpt->row.state == CKPT_WRITING || ckpt->row.state == CKPT_COMMITTED;
        if (there && ckpt->row.epoch <= epoch && ckpt->row.step > back_to && !ckpt->row.given_up) {
            ckpt->row.given_up = true;
            row_set_text(&ckpt->row.reason, why);
            core_mark(core, TABLE_CHECKPOINT, &ckpt->row);
        }
    }
    ckpt_set_newest(core, job);
}

/* The oldest of those that are good and lie in one stretch of `rollback` steps stands for it. */
static bool stands_for_its_stretch(const struct job *job, size_t i)
{
    int64_t stretch = job->ckpts[i]->row.step / job->row.guard_rollback;
    while (i-- > 0) {
        if (ckpt_is_good(job->ckpts[i])) {
            return job->ckpts[i]->row.step / job->row.guard_rollback != stretch;
        }
    }
    return true;
}

/* The newest ckpt_keep stay, and the pinned ones. A guard goes back `rollback` steps, and where
 * that does not help, as many again from there. So beyond those stays one a stretch of so many
 * steps, up to one that is old enough: four at most. What was given up stays until there is
 * something newer.
 */
void ckpt_retain(struct core *core, struct job *job)
{
    int64_t kept = 0;
    int64_t old_enough = 0;
    bool reaches_back = job->row.guard_rollback == 0;
    for (size_t i = job->ckpt_count; i-- > 0;) {
        struct ckpt *ckpt = job->ckpts[i];
        if (ckpt->row.state != CKPT_COMMITTED) {
            continue;
        }
        if (ckpt->row.given_up) {
            if (!ckpt->row.pinned) {
                ckpt_remove_files(core, ckpt, "the guard went back behind it");
            }
            continue;
        }
        old_enough = kept == 0 ? ckpt->row.step - 2 * job->row.guard_rollback : old_enough;
#ifdef MUTANT_guard_nothing_old
        reaches_back = true;
#endif
        if (++kept > job->row.ckpt_keep && !ckpt->row.pinned &&
            (reaches_back || !stands_for_its_stretch(job, i))) {
            ckpt_remove_files(core, ckpt, "newer ones are kept (checkpoint.keep)");
        } else {
            reaches_back = reaches_back || ckpt->row.step <= old_enough;
        }
    }
}
