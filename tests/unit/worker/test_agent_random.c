#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/random.h"
#include "worker/agent.h"

/* A coordinator, a shell and ranks that do anything allowed at any time */

static void started(struct agent *agent, struct agent_attempt *a)
{
    agent_shim(agent, a, &(struct agent_shim_word){.started = true, .started_at_ms = 5});
}

static void ended(struct agent *agent, struct agent_attempt *a)
{
    agent_shim(agent, a,
               &(struct agent_shim_word){.started = true, .ended = true, .ended_at_ms = 9});
}

#define JOBS   3
#define EPOCHS 4
#define TOKENS 100000

struct world {
    struct agent *agent;
    unsigned char orders[TOKENS]; /* 1 open, 2 answered */
    uint64_t next_token;
    bool up, registering;
    struct known {
        uint32_t phase, exits; /* as the coordinator knows it */
        uint64_t under_way;    /* version of the report, 0: none */
        bool persisting, recording, launched, live, stop_sent;
        uint32_t busy[2];
    } known[JOBS][EPOCHS + 1];
};

static struct known *known_of(struct world *w, const struct agent_attempt *a)
{
    return &w->known[a->job][a->epoch];
}

static void learn(struct world *w, const struct agent_attempt *a)
{
    struct known *k = known_of(w, a);
    uint32_t phase = agent_phase(a);
    uint32_t exits = 0;
    for (uint32_t i = 0; i < a->rank_count; i++) {
        exits += agent_exit_is_told(a, i);
        /* A told exit is never followed by more of that rank. */
        assert_false(agent_exit_is_told(a, i) && k->busy[i] > 0);
    }
    assert_true(phase >= k->phase && exits >= k->exits);
    assert_true(phase < 3 || (!k->live && !k->recording));
    k->phase = phase;
    k->exits = exits;
}

static void carry_out(struct world *w)
{
    struct agent_action action;
    while (agent_next(w->agent, &action)) {
        struct agent_attempt *a = action.attempt;
        struct known *k = a != NULL ? known_of(w, a) : NULL;
        switch (action.act) {
        case AGENT_PERSIST:
            k->persisting = true;
            break;
        case AGENT_LAUNCH:
            assert_false(k->launched);
            for (uint64_t e = 0; e < a->epoch; e++) {
                assert_false(w->known[a->job][e].live);
            }
            k->launched = true;
            k->live = true;
            break;
        case AGENT_STOP:
            k->stop_sent = true;
            break;
        case AGENT_RECORD:
            assert_false(k->live);
            k->recording = true;
            break;
        case AGENT_REPORT:
            assert_true(w->up);
            assert_int_equal(k->under_way, 0);
            k->under_way = action.version;
            learn(w, a);
            break;
        case AGENT_REMOVE:
            assert_false(k->live);
            memset(k, 0, sizeof *k);
            agent_removed(w->agent, a);
            break;
        case AGENT_ANSWER:
            assert_int_equal(w->orders[action.token], 1);
            w->orders[action.token] = 2;
            break;
        }
    }
}

static uint64_t open_order(struct world *w)
{
    w->orders[++w->next_token] = 1;
    return w->next_token;
}

static void exit_some(struct world *w, struct agent_attempt *a, bool all)
{
    for (uint32_t i = 0; i < a->rank_count; i++) {
        if (all || random_one_in(2)) {
            agent_shim_exit(a, a->rank_first + i, (int32_t)random_below(3), 0, 1, NULL);
        }
    }
    if (all) {
        known_of(w, a)->live = false;
        ended(w->agent, a);
    } else {
        started(w->agent, a);
    }
}

static void step_attempt(struct world *w, struct agent_attempt *a, bool settle)
{
    struct known *k = known_of(w, a);
    uint32_t r = a->rank_count > 0 ? (uint32_t)random_below(a->rank_count) : 0;
    if (k->persisting) {
        k->persisting = false;
        agent_persisted(w->agent, a, random_one_in(10) ? ERR_IO : 0, "x");
    } else if (k->recording) {
        k->recording = false;
        agent_recorded(w->agent, a);
    } else if (k->live && random_one_in(10)) {
        k->live = false;
        if (a->stage == AGENT_LAUNCHING && a->exits[0].known == false &&
            a->exits[1].known == false) {
            agent_launch_failed(w->agent, a, "no", 1);
        } else {
            agent_shim_lost(w->agent, a, "killed", 1);
        }
    } else if (k->live && (settle || k->stop_sent || random_one_in(3))) {
        exit_some(w, a, true);
    } else if (k->live) {
        exit_some(w, a, false);
    } else if (k->under_way != 0 && w->up) {
        uint64_t version = k->under_way;
        k->under_way = 0;
        agent_acked(w->agent, a, version);
    }
    if (a->rank_count > 0 && k->live && !a->exits[r].known && !settle && random_one_in(3)) {
        k->busy[r]++;
        agent_rank_busy(w->agent, a, a->rank_first + r, +1);
    } else if (a->rank_count > 0 && k->busy[r] > 0 && random_one_in(2)) {
        k->busy[r]--;
        agent_rank_busy(w->agent, a, a->rank_first + r, -1);
    }
}

static void step_link(struct world *w)
{
    if (w->up || w->registering) {
        w->up = false;
        w->registering = false;
        agent_link_lost(w->agent);
        for (size_t i = 0; i < agent_count(w->agent); i++) {
            known_of(w, agent_at(w->agent, i))->under_way = 0;
        }
    } else {
        w->registering = true;
        agent_registering(w->agent);
        for (size_t i = 0; i < agent_count(w->agent); i++) {
            if (agent_phase(agent_at(w->agent, i)) > 0) {
                learn(w, agent_at(w->agent, i));
            }
        }
    }
}

static void step_order(struct world *w)
{
    uint64_t job = random_below(JOBS);
    uint64_t epoch = 1 + random_below(EPOCHS);
    switch (random_below(4)) {
    case 0:
    case 1:
        agent_order_start(w->agent, open_order(w), job, epoch, 0, 2);
        break;
    case 2:
        agent_order_stop(w->agent, open_order(w), job, epoch, random_below(100), "stop");
        break;
    default:
        agent_order_forget(w->agent, open_order(w), job, epoch);
    }
}

static void random_life(void)
{
    static struct world w;
    memset(&w, 0, sizeof w);
    w.agent = agent_create();
    for (int i = 0; i < 400; i++) {
        size_t count = agent_count(w.agent);
        uint64_t what = random_below(10);
        if (what == 0) {
            step_order(&w);
        } else if (what == 1 && w.registering) {
            w.registering = false;
            w.up = true;
            agent_registered(w.agent);
        } else if (what == 1 && random_one_in(3)) {
            step_link(&w);
        } else if (count > 0) {
            step_attempt(&w, agent_at(w.agent, random_below(count)), false);
        }
        carry_out(&w);
    }
    /* Faults end: everything comes to rest, and the coordinator knows all of it. */
    if (!w.up) {
        if (!w.registering) {
            step_link(&w);
        }
        agent_registered(w.agent);
        w.up = true;
        carry_out(&w);
    }
    for (int i = 0; i < 2000; i++) {
        if (agent_count(w.agent) > 0) {
            step_attempt(&w, agent_at(w.agent, random_below(agent_count(w.agent))), true);
        }
        carry_out(&w);
    }
    for (size_t i = 0; i < agent_count(w.agent); i++) {
        const struct agent_attempt *a = agent_at(w.agent, i);
        assert_int_equal(a->stage, AGENT_ENDED);
        assert_int_equal(known_of(&w, a)->phase, 3);
        assert_int_equal(a->acked, a->version);
    }
    for (uint64_t t = 1; t <= w.next_token; t++) {
        assert_int_equal(w.orders[t], 2);
    }
    agent_destroy(w.agent);
}

/* Whatever happens in whatever order: each order is answered once, what is told never goes back,
 * two epochs of a job never have processes at once, and when things calm down the coordinator knows
 * every end. */
static void test_at_random(void **state)
{
    (void)state;
    random_start("agent");
    for (int i = 0; i < 3000; i++) {
        random_life();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_at_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
