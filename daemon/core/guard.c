#include "daemon/core/guard.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/core/attempt.h"
#include "daemon/core/checkpoint.h"
#include "daemon/core/quarantine.h"
#include "lib/err.h"

static bool is_one_of(const char *action, const char *const *list)
{
    for (; *list != NULL; list++) {
        if (strcmp(action, *list) == 0) {
            return true;
        }
    }
    return false;
}

static bool goes_back(const char *action)
{
    static const char *const back[] = {"rollback", "lower", NULL};
    return is_one_of(action, back);
}

static const char *problem_of(const struct input_guard *m)
{
    static const char *const known[] = {"replay",  "rollback", "lower", "hold",
                                        "corrupt", "skip",     NULL};
    if (!is_one_of(m->action, known)) {
        return "its action is unknown";
    }
    if (m->decided == 0 || m->decided > m->epoch) {
        return "it was decided by an attempt that is not there yet";
    }
    if (m->step > INT64_MAX || m->back_to > m->step) {
        return "a step is out of range";
    }
    return NULL;
}

/* The attempt under way began before this was known: the trainer went back further by itself. */
static void correct_resume(struct core *core, struct job *job)
{
    struct attempt *attempt = job->attempt;
    const struct ckpt *resume = core_ckpt(core, attempt->row.resume_ckpt_id);
    if (resume != NULL && resume->row.given_up && attempt->row.state != ATTEMPT_ENDED) {
        const struct ckpt *good = ckpt_newest(job);
        attempt->row.resume_ckpt_id = good != NULL ? good->row.id : 0;
        attempt->row.resume_step = good != NULL ? good->row.step : ROW_NONE;
        core_mark(core, TABLE_ATTEMPT, &attempt->row);
    }
}

/* The work between the checkpoint it goes back to and now is lost. */
static void go_back(struct core *core, struct job *job, const struct input_guard *m)
{
    char why[128];
    snprintf(why, sizeof why, "given up: at step %" PRIu64 " the guard went back to step %" PRIu64,
             m->step, m->back_to);
    ckpt_give_up(core, job, m->decided, (int64_t)m->back_to, why);
    if (m->decided < job->attempt->row.epoch) {
        correct_resume(core, job);
    }
    const struct ckpt *good = ckpt_newest(job);
    struct lost_work_row *row = core_append(core, TABLE_LOST_WORK);
    row->job_id = job->row.id;
    row->epoch = m->decided;
    row->from_ms = good != NULL ? good->row.step_at_ms : job->row.submitted_ms;
    row->to_ms = core->now_ms > row->from_ms ? core->now_ms : row->from_ms;
#ifdef MUTANT_guard_free_of_charge
    row->to_ms = row->from_ms;
#endif
}

static void blame(struct core *core, const struct job *job, const struct input_guard *m)
{
    const struct attempt *attempt = job->attempt;
    if (!m->has_odd_rank || m->decided != attempt->row.epoch ||
        m->odd_rank >= attempt->world_size) {
        return;
    }
    uint32_t per_node = attempt->world_size / attempt->node_count;
    char why[160];
    snprintf(why, sizeof why,
             "silent corruption suspected: rank %" PRIu32 " of job %" PRIu64
             " differed from all others at step %" PRIu64 " (test its memory and accelerators)",
             m->odd_rank, job->row.id, m->step);
    quarantine_suspect(core, attempt->nodes[m->odd_rank / per_node].node, why);
}

static void take(struct core *core, struct job *job, const struct input_guard *m)
{
    char kind[32];
    snprintf(kind, sizeof kind, "guard.%s", m->action);
    core_event(core, kind, job->row.id, m->decided, 0, "job %" PRIu64 " (%s): %s", job->row.id,
               job->row.name, m->text);
    core_mark(core, TABLE_JOB, &job->row);
    if (strcmp(m->action, "skip") == 0) {
        job->row.guard_taken = m->decided;
        return;
    }
    job->row.guard_epoch = m->decided;
    struct attempt_row *attempt = &job->attempt->row;
    if (m->decided == attempt->epoch) {
        row_set_text(&attempt->guard, m->action);
        row_set_text(&attempt->guard_text, m->text);
        attempt->guard_back_to = goes_back(m->action) ? (int64_t)m->back_to : ROW_NONE;
        core_mark(core, TABLE_ATTEMPT, attempt);
    }
    if (goes_back(m->action)) {
        go_back(core, job, m);
    } else if (strcmp(m->action, "corrupt") == 0) {
        blame(core, job, m);
    }
}

void guard_report(struct core *core, const struct input *in)
{
    const struct input_guard *m = &in->u.guard;
    struct job *job = core_job(core, m->job);
    const struct node *node = core_node_of_session(core, in->session);
    const char *problem = problem_of(m);
    if (problem != NULL) {
        core_reply(core, in, ERR_INVALID, "guard report refused: %s", problem);
        return;
    }
    if (job == NULL || node == NULL || attempt_find_node(core, node, m->job, m->epoch) == NULL) {
        core_reply(core, in, ERR_STALE, "epoch %" PRIu64 " of job %" PRIu64 " is over", m->epoch,
                   m->job);
        return;
    }
    uint64_t known = strcmp(m->action, "skip") == 0 ? job->row.guard_taken : job->row.guard_epoch;
#ifndef MUTANT_guard_repeats
    if (m->decided > known)
#endif
    {
        take(core, job, m);
    }
    core_reply(core, in, 0, "%s", "");
}
