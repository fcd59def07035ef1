#include "worker/report.h"

#include <stdlib.h>

#include "lib/mem.h"

static void fill(struct report *r, const struct agent_attempt *a, uint32_t phase, bool all_exits)
{
    *r = (struct report){.message = DS__ATTEMPT_REPORT__INIT};
    Ds__AttemptReport *m = &r->message;
    m->job = a->job;
    m->epoch = a->epoch;
    m->phase = phase;
    m->error = phase == 3 ? a->error : NULL;
    m->stuck = a->stuck;
    m->has_started_at = a->started_at_ms != 0;
    m->started_at = a->started_at_ms;
    m->has_ended_at = phase == 3 && a->ended_at_ms != 0;
    m->ended_at = a->ended_at_ms;
    r->exits = mem_alloc_array(a->rank_count, sizeof *r->exits);
    r->list = mem_alloc_array(a->rank_count, sizeof *r->list);
    for (uint32_t i = 0; i < a->rank_count; i++) {
        const struct agent_exit *e = &a->exits[i];
        if (!(all_exits ? e->known : agent_exit_is_told(a, i))) {
            continue;
        }
        Ds__RankExit *exit = &r->exits[m->n_exits];
        *exit = (Ds__RankExit)DS__RANK_EXIT__INIT;
        exit->rank = a->rank_first + i;
        exit->code = e->code;
        exit->signal = e->signal;
        exit->at = e->at_ms;
        exit->last_words = e->last_words;
        r->list[m->n_exits++] = exit;
    }
    m->exits = r->list;
}

void report_init(struct report *r, const struct agent_attempt *a)
{
    fill(r, a, agent_phase(a), false);
}

void report_init_end(struct report *r, const struct agent_attempt *a)
{
    fill(r, a, 3, true);
}

void report_fini(struct report *r)
{
    free(r->exits);
    free(r->list);
}
