#include "trainer/watch.h"

#include <inttypes.h>
#include <libgen.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/log.h"
#include "lib/mem.h"
#include "proto/ds.pb-c.h"
#include "proto/reporter.h"
#include "trainer/agree.h"
#include "trainer/guard_file.h"

#define TELL_MS        5000
#define TOLD_AGAIN_MAX 64

static char *root_of(const char *ckpt_dir)
{
    char *copy = mem_strdup(ckpt_dir);
    char *root = mem_strdup(dirname(copy));
    free(copy);
    return root;
}

/* ---- to the coordinator */

static void send_report(const struct watch *w, const char *action, uint64_t decided, uint64_t step,
                        const char *text, const uint64_t *back_to, int64_t odd_rank)
{
    Ds__GuardReport m = DS__GUARD_REPORT__INIT;
    m.decided = decided;
    m.action = (char *)(uintptr_t)action;
    m.step = step;
    m.text = (char *)(uintptr_t)text;
    m.has_back_to = back_to != NULL;
    m.back_to = back_to != NULL ? *back_to : 0;
    m.has_odd_rank = odd_rank >= 0;
    m.odd_rank = m.has_odd_rank ? (uint32_t)odd_rank : 0;
    if (w->reporter != NULL) {
        reporter_guard(w->reporter, &m);
    }
}

static void tell(const struct watch *w, const struct guard_decision *d)
{
    bool back = d->action == GUARD_ROLLBACK || d->action == GUARD_LOWER;
    send_report(w, guard_action_name(d->action), d->epoch, d->step, d->text,
                back ? &d->back_to : NULL, d->odd_rank);
}

/* The coordinator is to know it before it hears of our end. If it does not hear us, the next
 * attempt says it again. */
static void tell_now(const struct watch *w, const struct guard_decision *d)
{
    struct err why = {0};
    tell(w, d);
    if (w->reporter != NULL && reporter_flush(w->reporter, TELL_MS, &why) == ERR_TIMEOUT) {
        log_warn("guard: the coordinator has not acknowledged the decision yet: %s", why.text);
    }
}

/* ---- */

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
               struct comm *world, struct reporter *reporter, const char *ckpt_dir, uint64_t epoch,
               struct err *err)
{
    *w = (struct watch){.spec = &spec->guard,
                        .world = world,
                        .reporter = world->rank == 0 ? reporter : NULL,
                        .root = root_of(ckpt_dir),
                        .epoch = epoch};
    snprintf(w->layout, sizeof w->layout, "pp%u ep%u dp%u zero%u threads%u job %.16s",
             facts->pipeline, facts->expert, facts->data, facts->parted, facts->threads,
             facts->spec_sha256);
    if (!w->spec->enabled) {
        return 0;
    }
    int rc = world->rank == 0 ? guard_history_read(&w->history, w->root, err) : 0;
    TRY(agree(world, rc, "reading the guard's decisions", err));
    size_t told = w->history.count > TOLD_AGAIN_MAX ? w->history.count - TOLD_AGAIN_MAX : 0;
    for (size_t i = told; i < w->history.count; i++) {
        tell(w, &w->history.item[i]);
    }
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
    const struct guard_decision *back = guard_going_back(&w->history, at->guard.applied);
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
        char text[160];
        snprintf(text, sizeof text,
                 "from step %" PRIu64 " on, passing over %" PRIu64 " batches: sequences %" PRIu64
                 " to %" PRIu64,
                 at->step, batches, first, next - 1);
        log_info("guard: %s", text);
        send_report(w, "skip", back->epoch, at->step, text, NULL, -1);
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
    guard_explain(d);
    return w->spec->enabled ? guard_history_add(w->root, d, err) : 0;
}

/* Collective. Returns what the process ends with, which the text says on all ranks. */
static int decide(struct watch *w, struct guard_decision *d, struct err *err)
{
    int rc = w->world->rank == 0 ? record(w, d, err) : 0;
    TRY(agree(w->world, rc, "recording the guard's decision", err));
    if (w->world->rank == 0) {
        log_warn("guard: %s: %s", guard_action_name(d->action), d->text);
        tell_now(w, d);
    }
    TRY(w->world->ops->broadcast(w->world, d, sizeof *d, 0, err));
    int code = d->action == GUARD_CORRUPT ? ERR_SILENT
               : d->action == GUARD_HOLD  ? ERR_NUMERIC
                                          : ERR_AGAIN;
    return err_set(err, code, "%s", d->text);
}

int watch_step(struct watch *w, struct guard_state *state, const struct guard_sample *sample,
               struct err *err)
{
    struct guard_decision d;
    if (!w->spec->enabled) {
        return check_finite(sample, err);
    }
    enum guard_action action =
        guard_step(w->spec, &w->history, state, sample, w->epoch, w->layout, &d);
    return action == GUARD_GO_ON ? 0 : decide(w, &d, err);
}

int watch_replicas(struct watch *w, uint64_t step, const struct replica_finding *finding,
                   struct err *err)
{
    struct guard_decision d =
        guard_replicas_differ(w->epoch, step, finding->odd_rank, w->layout, finding->text);
    return decide(w, &d, err);
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
