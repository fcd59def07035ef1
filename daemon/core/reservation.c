#include "daemon/core/reservation.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/attempt.h"
#include "daemon/core/job.h"
#include "daemon/core/node.h"
#include "lib/err.h"
#include "lib/hostlist.h"
#include "lib/mem.h"

#define LENGTH_MS_MAX (366ll * 86400000)

bool reservation_is_live(const struct reservation *r)
{
    return r->row.state == RESERVATION_PLANNED || r->row.state == RESERVATION_ACTIVE;
}

bool reservation_admits(const struct reservation *r, const struct job *job)
{
    if (r->row.kind == RESERVATION_MAINT) {
        return false;
    }
    return (r->row.user == NULL || strcmp(r->row.user, job->row.user) == 0) &&
           (r->row.account == NULL || strcmp(r->row.account, job->row.account) == 0);
}

void reservation_fini(struct core *core)
{
    for (size_t i = 0; i < core->reservation_count; i++) {
        row_fini(&tables[TABLE_RESERVATION], &core->reservations[i]->row);
        free(core->reservations[i]->members);
        free(core->reservations[i]);
    }
    free(core->reservations);
}

void reservation_load(struct core *core, const struct reservation_row *row)
{
    struct reservation *r = mem_alloc(sizeof *r);
    r->row = *row;
    void *list = core->reservations;
    mem_grow(&list, &core->reservations_capacity, core->reservation_count + 1,
             sizeof *core->reservations);
    core->reservations = list;
    core->reservations[core->reservation_count++] = r;
}

static void add_member(struct reservation *r, struct node *node)
{
    void *members = r->members;
    mem_grow(&members, &r->member_capacity, r->member_count + 1, sizeof *r->members);
    r->members = members;
    size_t at = r->member_count;
    while (at > 0 && r->members[at - 1]->row.id > node->row.id) {
        r->members[at] = r->members[at - 1];
        at--;
    }
    if (at > 0 && r->members[at - 1] == node) {
        memmove(r->members + at, r->members + at + 1, (r->member_count - at) * sizeof *r->members);
        return;
    }
    r->members[at] = node;
    r->member_count++;
    bool is_maint = r->row.state == RESERVATION_ACTIVE && r->row.kind == RESERVATION_MAINT;
    node->maint += is_maint ? 1 : 0;
}

/* Finds the registered ones of the nodes it names. */
static void resolve(const struct core *core, struct reservation *r)
{
    struct hostlist names = {0};
    struct err err;
    if (hostlist_expand(&names, r->row.nodes, &err) == 0) {
        for (size_t i = 0; i < names.count; i++) {
            struct node *node = core_node_by_name(core, names.names[i]);
            if (node != NULL) {
                add_member(r, node);
            }
        }
    }
    hostlist_fini(&names);
}

void reservation_add_node(struct core *core, struct node *node)
{
    for (size_t i = 0; i < core->reservation_count; i++) {
        struct reservation *r = core->reservations[i];
        struct hostlist names = {0};
        struct err err;
        if (reservation_is_live(r) && hostlist_expand(&names, r->row.nodes, &err) == 0) {
            for (size_t j = 0; j < names.count; j++) {
                if (strcmp(names.names[j], node->row.name) == 0) {
                    add_member(r, node);
                    break;
                }
            }
        }
        hostlist_fini(&names);
    }
}

static void set_timer(struct core *core, const struct reservation *r)
{
    if (reservation_is_live(r)) {
        timers_set(&core->timers, TIMER_RESERVATION, r->row.id,
                   r->row.state == RESERVATION_PLANNED ? r->row.start_ms : r->row.end_ms);
    }
}

void reservation_load_done(struct core *core)
{
    for (size_t i = 0; i < core->reservation_count; i++) {
        if (reservation_is_live(core->reservations[i])) {
            resolve(core, core->reservations[i]);
            set_timer(core, core->reservations[i]);
        }
    }
}

/* ---------------------------------------------------------------- life */

static const char *kind_text(const struct reservation *r)
{
    return r->row.kind == RESERVATION_MAINT ? "maintenance" : "reservation";
}

/* Whatever runs there and may not is asked to save and to make room. */
static void clear(struct core *core, const struct reservation *r)
{
    for (size_t i = 0; i < r->member_count; i++) {
        for (struct attempt_node *an = r->members[i]->first; an != NULL; an = an->next) {
            struct attempt *attempt = an->attempt;
            if (attempt->row.state != ATTEMPT_STOPPING && !reservation_admits(r, attempt->job)) {
                char text[300];
                snprintf(text, sizeof text, "made room for %s %" PRIu64 ": %.200s", kind_text(r),
                         r->row.id, r->row.reason);
                job_set_reason(core, attempt->job, "maint", text);
                attempt_stop(core, attempt, "maint");
            }
        }
    }
}

static void begin(struct core *core, struct reservation *r)
{
    r->row.state = RESERVATION_ACTIVE;
    core_mark(core, TABLE_RESERVATION, &r->row);
    core_event(core, "maint.begin", 0, 0, 0, "%s %" PRIu64 " of %.400s begins: %.200s",
               kind_text(r), r->row.id, r->row.nodes, r->row.reason);
    for (size_t i = 0; i < r->member_count; i++) {
        r->members[i]->maint += r->row.kind == RESERVATION_MAINT;
    }
    clear(core, r);
    for (size_t i = 0; i < r->member_count; i++) {
        node_settle(core, r->members[i]);
    }
    set_timer(core, r);
}

static void finish(struct core *core, struct reservation *r, enum reservation_state state)
{
    bool was_active = r->row.state == RESERVATION_ACTIVE;
    r->row.state = state;
    r->row.ended_ms = core->now_ms;
    core_mark(core, TABLE_RESERVATION, &r->row);
    for (size_t i = 0; i < r->member_count; i++) {
        r->members[i]->maint -= was_active && r->row.kind == RESERVATION_MAINT;
        node_settle(core, r->members[i]);
    }
    core->sched_due = true;
}

void reservation_timer(struct core *core, uint64_t id)
{
    struct reservation *r = core->reservations[id - 1];
    if (r->row.state == RESERVATION_PLANNED && r->row.start_ms <= core->now_ms) {
        begin(core, r);
    }
    if (r->row.state == RESERVATION_ACTIVE && r->row.end_ms <= core->now_ms) {
        core_event(core, "maint.end", 0, 0, 0, "%s %" PRIu64 " of %.400s is over", kind_text(r), id,
                   r->row.nodes);
        finish(core, r, RESERVATION_OVER);
    }
}

/* ---------------------------------------------------------------- operators */

/* Refuses what cannot be meant. */
static bool check(struct core *core, const struct input *in)
{
    const struct input_reservation *w = &in->u.reservation;
    struct hostlist names = {0};
    struct err err = {0};
    if (w->nodes == NULL || hostlist_expand(&names, w->nodes, &err) != 0 || names.count == 0) {
        core_reply(core, in, ERR_INVALID, "nodes '%.80s': %.200s", w->nodes != NULL ? w->nodes : "",
                   err.code != 0 ? err.text : "no node is named (such as gpu[001-032])");
        hostlist_fini(&names);
        return false;
    }
    const char *unknown = NULL;
    char name[80] = "";
    for (size_t i = 0; i < names.count; i++) {
        bool there = core_node_by_name(core, names.names[i]) != NULL;
        if (!there && unknown == NULL) {
            snprintf(name, sizeof name, "%s", names.names[i]);
            unknown = name;
        }
    }
    hostlist_fini(&names);
    if (unknown != NULL) {
        core_reply(core, in, ERR_NOT_FOUND, "no node is named %.80s (dsctl node list)", unknown);
        return false;
    }
    if (w->end_ms <= w->start_ms || w->end_ms - w->start_ms > LENGTH_MS_MAX) {
        core_reply(core, in, ERR_INVALID,
                   "it has to end after it starts, and within a year (give a duration)");
        return false;
    }
    if (w->end_ms <= core->now_ms) {
        core_reply(core, in, ERR_INVALID, "it would be over already (give a later start)");
        return false;
    }
    if (!w->is_maint && w->user == NULL && w->account == NULL) {
        core_reply(core, in, ERR_INVALID, "a reservation is for a user or an account: give one");
        return false;
    }
    return true;
}

static bool same_text(const char *a, const char *b)
{
    return (a == NULL) == (b == NULL) && (a == NULL || strcmp(a, b) == 0);
}

/* The same window, planned by the same person and live: whoever got no answer asks again. */
static const struct reservation *find_same(const struct core *core,
                                           const struct input_reservation *w)
{
    for (size_t i = 0; i < core->reservation_count; i++) {
        const struct reservation *r = core->reservations[i];
        bool has_begun = r->row.start_ms <= core->now_ms && w->start_ms <= core->now_ms;
        if (reservation_is_live(r) && (r->row.kind == RESERVATION_MAINT) == w->is_maint &&
            r->row.end_ms == w->end_ms && (has_begun || r->row.start_ms == w->start_ms) &&
            same_text(r->row.nodes, w->nodes) && same_text(r->row.reason, w->reason) &&
            same_text(r->row.by_user, w->by_user) &&
            (w->is_maint ||
             (same_text(r->row.user, w->user) && same_text(r->row.account, w->account)))) {
            return r;
        }
    }
    return NULL;
}

void reservation_create(struct core *core, const struct input *in)
{
    const struct input_reservation *w = &in->u.reservation;
    if (!check(core, in)) {
        return;
    }
    const struct reservation *same = find_same(core, w);
    if (same != NULL) {
        core_reply_id(core, in, same->row.id);
        return;
    }
    struct reservation_row row = {
        .id = core->reservation_count + 1,
        .kind = w->is_maint ? RESERVATION_MAINT : RESERVATION_RESERVE,
        .state = RESERVATION_PLANNED,
        .start_ms = w->start_ms > core->now_ms ? w->start_ms : core->now_ms,
        .end_ms = w->end_ms,
        .created_ms = core->now_ms,
        .ended_ms = ROW_NONE,
    };
    row_set_text(&row.nodes, w->nodes);
    row_set_text(&row.user, w->is_maint ? NULL : w->user);
    row_set_text(&row.account, w->is_maint ? NULL : w->account);
    row_set_text(&row.reason,
                 w->reason != NULL && w->reason[0] != 0 ? w->reason : "no reason given");
    row_set_text(&row.by_user, w->by_user != NULL ? w->by_user : "unknown");
    reservation_load(core, &row);
    struct reservation *r = core->reservations[core->reservation_count - 1];
    resolve(core, r);
    core_mark(core, TABLE_RESERVATION, &r->row);
    char start[32], end[32];
    time_format(row.start_ms, start, sizeof start);
    time_format(row.end_ms, end, sizeof end);
    core_event(core, "maint.created", 0, 0, 0,
               "%s plans %s %" PRIu64 " of %.400s from %s to %s: %.200s", r->row.by_user,
               kind_text(r), r->row.id, r->row.nodes, start, end, r->row.reason);
    core_reply_id(core, in, r->row.id);
    if (row.start_ms <= core->now_ms) {
        begin(core, r);
    } else {
        set_timer(core, r);
    }
    core->sched_due = true;
}

void reservation_cancel(struct core *core, const struct input *in)
{
    uint64_t id = in->u.reservation.id;
    if (id == 0 || id > core->reservation_count) {
        core_reply(core, in, ERR_NOT_FOUND,
                   "there is no maintenance window or reservation %" PRIu64 " (dsctl maint list)",
                   id);
        return;
    }
    struct reservation *r = core->reservations[id - 1];
    if (!reservation_is_live(r)) {
        core_reply(core, in, ERR_CONFLICT, "%s %" PRIu64 " is %s already", kind_text(r), id,
                   r->row.state == RESERVATION_OVER ? "over" : "cancelled");
        return;
    }
    core_event(core, "maint.cancelled", 0, 0, 0, "%s cancels %s %" PRIu64 " of %.400s",
               in->u.reservation.by_user != NULL ? in->u.reservation.by_user : "unknown",
               kind_text(r), id, r->row.nodes);
    finish(core, r, RESERVATION_CANCELLED);
    core_reply(core, in, 0, "%s", "");
}
