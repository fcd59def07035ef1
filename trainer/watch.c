#include "trainer/watch.h"

#include <inttypes.h>
#include <libgen.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/log.h"
#include "lib/mem.h"
#include "trainer/agree.h"
#include "trainer/guard_file.h"

static char *root_of(const char *ckpt_dir)
{
    char *copy = mem_strdup(ckpt_dir);
    char *root = mem_strdup(dirname(copy));
    free(copy);
    return root;
}

/* Rank 0's history on all. */
static int share_history(struct watch *w, struct err *err)
{
    uint64_t count = w->history.count;
    const struct comm_ops *ops = w->world->ops;
    TRY(ops->broadcast(w->world, &count, sizeof count, 0, err));
    if (count == 0) {
        return 0;
    }
    if (w->world->rank != 0) {
        w->history.item = mem_alloc_array(count, sizeof *w->history.item);
        w->history.count = count;
    }
    return ops->broadcast(w->world, w->history.item, count * sizeof *w->history.item, 0, err);
}

int watch_init(struct watch *w, const struct train_spec *spec, const struct ckpt_facts *facts,
               struct comm *world, const char *ckpt_dir, uint64_t epoch, struct err *err)
{
    *w = (struct watch){
        .spec = &spec->guard, .world = world, .root = root_of(ckpt_dir), .epoch = epoch};
    snprintf(w->layout, sizeof w->layout, "pp%u ep%u dp%u zero%u threads%u job %.16s",
             facts->pipeline, facts->expert, facts->data, facts->parted, facts->threads,
             facts->spec_sha256);
    if (!w->spec->enabled) {
        return 0;
    }
    int rc = world->rank == 0 ? guard_history_read(&w->history, w->root, err) : 0;
    TRY(agree(world, rc, "reading the guard's decisions", err));
    TRY(share_history(w, err));
    /* Only equal layouts are compared, so that of rank 0 stands for all. */
    return world->ops->broadcast(world, w->layout, sizeof w->layout, 0, err);
}

void watch_fini(struct watch *w)
{
    guard_history_fini(&w->history);
    free(w->root);
    *w = (struct watch){0};
}

bool watch_owns(const struct watch *w, const char *checkpoint)
{
    char *from = realpath(checkpoint, NULL);
    char *root = realpath(w->root, NULL);
    bool own = from != NULL && root != NULL && strcmp(dirname(dirname(from)), root) == 0;
    free(from);
    free(root);
    return own;
}

int watch_choose(struct watch *w, const char *resume, bool own, char **chosen, struct err *err)
{
    *chosen = NULL;
    if (resume == NULL || !own || w->history.count == 0) {
        *chosen = resume != NULL ? mem_strdup(resume) : NULL;
        return 0;
    }
    int rc = 0;
    if (w->world->rank == 0) {
        rc = guard_choose(w->root, &w->history, resume, chosen, err);
        if (rc == 0 && (*chosen == NULL || strcmp(*chosen, resume) != 0)) {
            log_warn("guard: %s was given up; going on from %s", resume,
                     *chosen != NULL ? *chosen : "the beginning, no checkpoint before it is there");
        }
    }
    TRY(agree(w->world, rc, "choosing the checkpoint", err));
    return agree_text(w->world, chosen, err);
}

void watch_take_over(struct watch *w, const struct train_spec *spec, bool own,
                     struct ckpt_facts *at, struct cursor *cursor)
{
    if (!own) {
        at->guard.applied = 0; /* it counts another run's */
    }
    if (!w->spec->enabled) {
        return;
    }
    uint64_t batches = guard_take_over(&w->history, &at->guard, at->step);
    uint64_t first = cursor->position;
    uint64_t next = cursor_nth(cursor, batches * schedule_batch(spec, at->tokens));
    if (batches > 0) {
        cursor_skip(cursor, first, next - first);
    }
    if (w->world->rank != 0) {
        return;
    }
    const struct guard_decision *replay = guard_replaying(&w->history);
    if (replay != NULL && replay->step > at->step) {
        log_info("guard: replaying from step %" PRIu64 " to step %" PRIu64, at->step, replay->step);
    }
    if (batches > 0) {
        log_info("guard: from step %" PRIu64 " on, passing over %" PRIu64
                 " batches: sequences %" PRIu64 " to %" PRIu64,
                 at->step, batches, first, next);
    }
    if (guard_lr_factor(&at->guard, at->step + 1) < 1) {
        log_info("guard: %g times the learning rate until step %" PRIu64, at->guard.lr_factor,
                 at->guard.lr_until);
    }
}

/* Without the guard only what is not finite ends a run. */
static int check_finite(const struct guard_sample *s, struct err *err)
{
    if (isfinite(s->loss) && isfinite(s->grad_norm) && (!s->has_mtp || isfinite(s->mtp_loss))) {
        return 0;
    }
    return err_set(err, ERR_NUMERIC,
                   "step %" PRIu64 ": loss %g, gradient norm %g: not finite, the step was not "
                   "applied (a lower lr, or resume from an earlier checkpoint)",
                   s->step, s->loss, fabs(s->grad_norm));
}

/* On rank 0, where the checkpoints are looked for. */
static int record(struct watch *w, struct guard_decision *d, struct err *err)
{
    if (d->action == GUARD_ROLLBACK || d->action == GUARD_LOWER) {
        d->back_to = guard_back_to(w->root, &w->history, d->back_to);
    }
    return guard_history_add(w->root, d, err);
}

int watch_step(struct watch *w, struct guard_state *state, const struct guard_sample *sample,
               struct err *err)
{
    struct guard_decision d;
    char text[512];
    if (!w->spec->enabled) {
        return check_finite(sample, err);
    }
    enum guard_action action =
        guard_step(w->spec, &w->history, state, sample, w->epoch, w->layout, &d);
    if (action == GUARD_GO_ON) {
        return 0;
    }
    int rc = w->world->rank == 0 ? record(w, &d, err) : 0;
    TRY(agree(w->world, rc, "recording the guard's decision", err));
    TRY(w->world->ops->broadcast(w->world, &d.back_to, sizeof d.back_to, 0, err));
    guard_explain(&d, text, sizeof text);
    if (w->world->rank == 0) {
        log_warn("guard: %s: %s", guard_action_name(action), text);
    }
    int code = action == GUARD_CORRUPT ? ERR_SILENT
               : action == GUARD_HOLD  ? ERR_NUMERIC
                                       : ERR_AGAIN;
    return err_set(err, code, "%s", text);
}

size_t watch_decided(const char *ckpt_dir, bool *another)
{
    struct guard_history history;
    char *root = root_of(ckpt_dir);
    size_t count = 0;
    *another = false;
    if (guard_history_read(&history, root, NULL) == 0 && history.count > 0) {
        enum guard_action last = history.item[history.count - 1].action;
        count = history.count;
        *another = last != GUARD_HOLD && last != GUARD_CORRUPT;
        guard_history_fini(&history);
    }
    free(root);
    return count;
}
