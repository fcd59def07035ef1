/* The coordinator process: the production core, pump and store. Inputs that come within a few
 * milliseconds are one batch, as in a turn of the real loop. A crash drops what was not committed;
 * it may come at any time, before or after the commit of a batch, or between two of its effects. */
#include "daemon/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/err.h"
#include "lib/mem.h"

int64_t coord_now_ms(const struct sim *sim)
{
    return sim->now_ms + sim->coord_clock_ms;
}

static void schedule_restart(struct sim *sim);

/* ---- the store, with deaths */
static int commit(void *context, struct core *core, int64_t now_ms, struct err *err)
{
    struct sim *sim = context;
    if (!sim->calm && sim_chance(sim, sim->options.crash_in_commit)) {
        sim_trace(sim, "coordinator dies before the commit");
        sim_count(sim, COUNT_CRASH_BEFORE);
        sim->coord_doomed = true;
        return err_set(err, ERR_IO, "dead");
    }
    check_leases(sim, core);
    int rc = disk_commit(sim, core, now_ms, err);
    if (rc != 0 && sim->disk_bad) {
        sim_trace(sim, "coordinator cannot commit, and dies: %s", err->text);
        sim_count(sim, COUNT_COMMITS_FAILED);
        sim->coord_doomed = true;
        sim->release_left = 0;
        return rc;
    }
    if (rc != 0) {
        sim_fail(sim, "commit: %s", err->text);
    }
    if (sim->disk_delay_ms > 0) {
        int64_t until_ms = sim->now_ms + sim_between(sim, 1, sim->disk_delay_ms);
        sim->coord_frozen_until_ms =
            until_ms > sim->coord_frozen_until_ms ? until_ms : sim->coord_frozen_until_ms;
    }
    sim_count(sim, COUNT_COMMITS);
    if (!sim->calm && sim_chance(sim, sim->options.crash_in_commit)) {
        sim_trace(sim, "coordinator dies after the commit");
        sim_count(sim, COUNT_CRASH_AFTER);
        sim->coord_doomed = true;
        sim->release_left = sim_roll(sim, 4);
    }
    return 0;
}
static const struct store_ops ops = {commit};

/* ---- effects */
static void release_reply(struct sim *sim, const struct effect *effect)
{
    reply_token token = effect->u.reply.token;
    if (token == 0 || token >= sim->origin_capacity) {
        sim_fail(sim, "an answer to nobody: token %llu", (unsigned long long)token);
    }
    if ((effect->u.reply.code == 0) != (effect->u.reply.text[0] == 0)) {
        sim_fail(sim, "an answer with code %d and text '%s'", effect->u.reply.code,
                 effect->u.reply.text);
    }
    if (sim->origins[token].kind == ORIGIN_WORKER) {
        struct order order = {.kind = EFFECT_REPLY,
                              .token = token,
                              .code = effect->u.reply.code,
                              .term = core_term(sim->core)};
        net_order(sim, sim->origins[token].session, &order);
    } else {
        users_replied(sim, (int)sim->origins[token].kind, sim->origins[token].who,
                      effect->u.reply.code, effect->u.reply.id);
    }
}

static void release_order(struct sim *sim, const struct effect *effect)
{
    struct order order = {.kind = effect->kind};
    const struct effect_start *start = &effect->u.start;
    switch (effect->kind) {
    case EFFECT_ATTEMPT_START:
        order.job = start->job;
        order.epoch = start->epoch;
        order.rank_first = start->rank_first;
        order.world_size = start->world_size;
        order.gpu_count = start->gpu_count;
        for (size_t i = 0; i < start->gpu_count; i++) {
            order.gpus[i] = start->gpu_index[i];
        }
        order.request = strtoull(start->spec_json, NULL, 10);
        snprintf(order.path, sizeof order.path, "%s", start->checkpoint_dir);
        order.resume_ckpt = start->resume_ckpt;
        order.resume_step = start->resume_step;
        if (start->resume_ckpt != 0) {
            snprintf(order.resume_path, sizeof order.resume_path, "%s", start->resume_path);
        }
        sim_count(sim, COUNT_STARTS);
        break;
    case EFFECT_ATTEMPT_STOP:
    case EFFECT_ATTEMPT_FORGET:
        order.job = effect->u.stop.job;
        order.epoch = effect->u.stop.epoch;
        order.grace_ms = (int64_t)effect->u.stop.grace_ms;
        break;
    case EFFECT_CKPT_PUBLISH:
    case EFFECT_CKPT_REMOVE:
        order.ckpt = effect->u.ckpt.ckpt;
        snprintf(order.path, sizeof order.path, "%s", effect->u.ckpt.path);
        break;
    default:
        break;
    }
    net_order(sim, effect->session, &order);
}

static void release(void *world, const struct effect *effect)
{
    struct sim *sim = world;
    if (sim->coord_doomed && sim->release_left-- == 0) {
        sim->release_left = 0;
        return;
    }
    switch (effect->kind) {
    case EFFECT_REPLY:
        release_reply(sim, effect);
        break;
    case EFFECT_EVENT:
        if (effect->u.event.seq <= sim->last_event) {
            sim_fail(sim, "event %llu comes after event %llu",
                     (unsigned long long)effect->u.event.seq, (unsigned long long)sim->last_event);
        }
        sim->last_event = effect->u.event.seq;
        break;
    case EFFECT_EPOCH_OVER:
        if (core_epoch_is_live(sim->core, effect->u.stop.job, effect->u.stop.epoch)) {
            sim_fail(sim, "epoch %llu of job %llu is over and live",
                     (unsigned long long)effect->u.stop.epoch,
                     (unsigned long long)effect->u.stop.job);
        }
        break;
    default:
        release_order(sim, effect);
    }
}
static const struct effect_sink sink = {release};

/* ---- life */
static void flush(struct sim *sim, uint64_t life, uint64_t b, void *payload)
{
    (void)b;
    (void)payload;
    if (!sim->coord_up || sim->coord_life != life) {
        return;
    }
    if (sim->now_ms < sim->coord_frozen_until_ms) {
        sim_after(sim, sim->coord_frozen_until_ms - sim->now_ms, flush, life, 0, NULL);
        return;
    }
    sim->flush_set = false;
    struct err err = {0};
    int rc = pump_flush(sim->pump, &err);
    if (sim->coord_doomed) {
        coord_crash(sim);
    } else if (rc != 0) {
        sim_fail(sim, "flush: %s", err.text);
    } else if (sim_chance(sim, 0.02)) {
        check_reload(sim);
    }
}

static void tick(struct sim *sim, uint64_t life, uint64_t generation, void *payload)
{
    (void)payload;
    if (!sim->coord_up || sim->coord_life != life || sim->tick_set != generation) {
        return;
    }
    if (sim->now_ms < sim->coord_frozen_until_ms) {
        sim_after(sim, sim->coord_frozen_until_ms - sim->now_ms, tick, life, generation, NULL);
        return;
    }
    coord_input(sim, &(struct input){.kind = INPUT_TICK});
}

bool coord_input(struct sim *sim, struct input *in)
{
    if (!sim->coord_up) {
        return false;
    }
    in->now_ms = coord_now_ms(sim);
    pump_input(sim->pump, in);
    sim_count(sim, COUNT_INPUTS);
    sim_note(sim, (uint64_t)in->kind);
    const char *problem = core_check(sim->core);
    if (problem != NULL) {
        sim_fail(sim, "after input %d: %s", (int)in->kind, problem);
    }
    if (pump_is_dirty(sim->pump) && !sim->flush_set) {
        sim->flush_set = true;
        sim_after(sim, sim_between(sim, 0, 3), flush, sim->coord_life, 0, NULL);
    }
    int64_t deadline_ms = core_deadline(sim->core);
    if (deadline_ms != INT64_MAX) {
        sim_after(sim, deadline_ms - coord_now_ms(sim), tick, sim->coord_life, ++sim->tick_set,
                  NULL);
    }
    return true;
}

static int64_t wall_jump_ms(struct sim *sim)
{
    if (!sim_chance(sim, 0.25)) {
        return 0;
    }
    int64_t most_ms = sim->calm ? 60000 : 3600000;
    bool back = sim_chance(sim, 0.7);
    sim_count(sim, back ? COUNT_CLOCK_BACK : COUNT_CLOCK_FORWARD);
    return back ? -sim_between(sim, 0, most_ms) : sim_between(sim, 0, most_ms);
}

void coord_start(struct sim *sim)
{
    struct err err = {0};
    struct core_config config;
    sim_config(&config);
    sim->core = core_create(&config);
    /* The wall clock is set back or forward now and then while nobody runs. */
    int64_t wall_ms = SIM_EPOCH_MS + sim->now_ms + wall_jump_ms(sim);
    if (disk_open(sim, sim->core, wall_ms, &err) != 0) {
        if (!sim->disk_bad) {
            sim_fail(sim, "open: %s", err.text);
        }
        sim_trace(sim, "coordinator cannot start: %s", err.text);
        core_destroy(sim->core);
        sim->core = NULL;
        disk_crash(sim);
        disk_close(sim);
        schedule_restart(sim);
        return;
    }
    sim->coord_clock_ms = core_now_ms(sim->core) - sim->now_ms;
    sim->pump = pump_create(sim->core, &ops, sim, &sink, sim);
    sim->coord_up = true;
    sim->coord_since_ms = sim->now_ms;
    sim->coord_doomed = false;
    sim->flush_set = false;
    sim->coord_life++;
    users_coord_started(sim);
    sim_trace(sim, "coordinator starts, term %d", (int)core_term(sim->core));
    coord_input(sim, &(struct input){.kind = INPUT_TICK});
}

void coord_stop(struct sim *sim)
{
    pump_destroy(sim->pump);
    core_destroy(sim->core);
    disk_close(sim);
    sim->pump = NULL;
    sim->core = NULL;
    sim->coord_up = false;
}

static void restart(struct sim *sim, uint64_t a, uint64_t b, void *payload)
{
    (void)a;
    (void)b;
    (void)payload;
    coord_start(sim);
}

static void schedule_restart(struct sim *sim)
{
    sim_after(sim,
              sim_chance(sim, 0.2) ? sim_between(sim, 10000, 90000) : sim_between(sim, 100, 5000),
              restart, 0, 0, NULL);
}

void coord_crash(struct sim *sim)
{
    if (!sim->coord_up) {
        return;
    }
    sim_trace(sim, "coordinator crashes");
    disk_crash(sim);
    coord_stop(sim);
    users_coord_crashed(sim);
    for (int i = 0; i < sim->options.nodes; i++) {
        net_break(sim, &sim->workers[i], -1);
    }
    schedule_restart(sim);
}

void coord_freeze(struct sim *sim, int64_t ms)
{
    sim_count(sim, COUNT_PAUSES);
    sim_trace(sim, "coordinator stands still for %d ms", (int)ms);
    sim->coord_frozen_until_ms = sim->now_ms + ms;
}
