#include "worker/agent.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

struct agent {
    struct agent_attempt **attempts; /* owned, as are the items; in the order they came */
    size_t count, capacity;
    struct agent_action *queue; /* owned; from queue_at on, oldest first */
    size_t queue_at, queue_count, queue_capacity;
    bool registered;
};

struct agent *agent_create(void)
{
    return mem_alloc(sizeof(struct agent));
}

static void attempt_destroy(struct agent_attempt *a)
{
    for (uint32_t i = 0; i < a->rank_count; i++) {
        free(a->exits[i].last_words);
    }
    free(a->exits);
    free(a->busy);
    free(a->error);
    free(a->stuck);
    free(a->stop_reason);
    free(a);
}

void agent_destroy(struct agent *agent)
{
    if (agent == NULL) {
        return;
    }
    for (size_t i = 0; i < agent->count; i++) {
        attempt_destroy(agent->attempts[i]);
    }
    free(agent->attempts);
    free(agent->queue);
    free(agent);
}

/* ---- the queue of actions */

static struct agent_action *push(struct agent *agent, enum agent_act act, struct agent_attempt *a)
{
    if (agent->queue_at > 0 && agent->queue_at == agent->queue_count) {
        agent->queue_at = 0;
        agent->queue_count = 0;
    }
    void *queue = agent->queue;
    mem_grow(&queue, &agent->queue_capacity, agent->queue_count + 1, sizeof *agent->queue);
    agent->queue = queue;
    struct agent_action *action = &agent->queue[agent->queue_count++];
    *action = (struct agent_action){.act = act, .attempt = a};
    return action;
}

static void answer(struct agent *agent, uint64_t token, int code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static void answer(struct agent *agent, uint64_t token, int code, const char *fmt, ...)
{
    struct agent_action *action = push(agent, AGENT_ANSWER, NULL);
    action->token = token;
    action->code = code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(action->text, sizeof action->text, fmt, ap);
    va_end(ap);
}

/* Hands out a report when there is news and none is under way. */
static void offer_report(struct agent *agent, struct agent_attempt *a)
{
    if (agent->registered && a->version > a->sent && a->sent == a->acked && agent_phase(a) > 0) {
        a->sent = a->version;
        push(agent, AGENT_REPORT, a)->version = a->version;
    }
}

static void tell(struct agent *agent, struct agent_attempt *a)
{
    a->version++;
    offer_report(agent, a);
}

bool agent_next(struct agent *agent, struct agent_action *action)
{
    while (agent->queue_at < agent->queue_count) {
        *action = agent->queue[agent->queue_at++];
        if (action->act == AGENT_REPORT) {
            if (!agent->registered) {
                continue; /* the link broke meanwhile: the next registration says it */
            }
            /* What it says is what is known when it is sent. */
            action->attempt->sent = action->attempt->version;
            action->version = action->attempt->version;
        }
        return true;
    }
    return false;
}

static void forget_actions_of(struct agent *agent, const struct agent_attempt *a)
{
    size_t kept = agent->queue_at;
    for (size_t i = agent->queue_at; i < agent->queue_count; i++) {
        if (agent->queue[i].attempt != a) {
            agent->queue[kept++] = agent->queue[i];
        }
    }
    agent->queue_count = kept;
}

/* ---- attempts */

struct agent_attempt *agent_find(struct agent *agent, uint64_t job, uint64_t epoch)
{
    for (size_t i = 0; i < agent->count; i++) {
        if (agent->attempts[i]->job == job && agent->attempts[i]->epoch == epoch) {
            return agent->attempts[i];
        }
    }
    return NULL;
}

size_t agent_count(const struct agent *agent)
{
    return agent->count;
}

struct agent_attempt *agent_at(struct agent *agent, size_t i)
{
    return agent->attempts[i];
}

static struct agent_attempt *add(struct agent *agent, uint64_t job, uint64_t epoch,
                                 uint32_t rank_first, uint32_t rank_count, enum agent_stage stage)
{
    struct agent_attempt *a = mem_alloc(sizeof *a);
    a->job = job;
    a->epoch = epoch;
    a->rank_first = rank_first;
    a->rank_count = rank_count;
    a->stage = stage;
    a->exits = mem_alloc_array(rank_count, sizeof *a->exits);
    a->busy = mem_alloc_array(rank_count, sizeof *a->busy);
    void *attempts = agent->attempts;
    mem_grow(&attempts, &agent->capacity, agent->count + 1, sizeof(struct agent_attempt *));
    agent->attempts = attempts;
    agent->attempts[agent->count++] = a;
    return a;
}

static bool older_is_here(const struct agent *agent, const struct agent_attempt *a)
{
    for (size_t i = 0; i < agent->count; i++) {
        const struct agent_attempt *other = agent->attempts[i];
        if (other->job == a->job && other->epoch < a->epoch && other->stage != AGENT_ENDED) {
            return true;
        }
    }
    return false;
}

static const struct agent_attempt *newer(const struct agent *agent, uint64_t job, uint64_t epoch)
{
    for (size_t i = 0; i < agent->count; i++) {
        if (agent->attempts[i]->job == job && agent->attempts[i]->epoch > epoch) {
            return agent->attempts[i];
        }
    }
    return NULL;
}

static void remove_attempt(struct agent *agent, struct agent_attempt *a)
{
    if (!a->removing) {
        a->removing = true;
        push(agent, AGENT_REMOVE, a);
    }
}

static void launch_or_wait(struct agent *agent, struct agent_attempt *a)
{
    if (older_is_here(agent, a)) {
        a->stage = AGENT_WAITING;
    } else {
        a->stage = AGENT_LAUNCHING;
        push(agent, AGENT_LAUNCH, a);
    }
}

/* The end is on disk, or there is nothing on disk: it may be told. */
static void end(struct agent *agent, struct agent_attempt *a)
{
    a->stage = AGENT_ENDED;
    a->accepted = true;
    a->recorded = true;
    tell(agent, a);
    for (size_t i = 0; i < agent->count; i++) {
        struct agent_attempt *other = agent->attempts[i];
        if (other->job == a->job && other->stage == AGENT_WAITING) {
            launch_or_wait(agent, other);
        }
    }
    if (a->forget_wanted) {
        remove_attempt(agent, a);
    }
}

/* The end of what no shim has ended. It is written first: else a restarted worker would not know
 * it, and might start the attempt once more. */
static void end_by_worker(struct agent *agent, struct agent_attempt *a)
{
    a->stage = AGENT_ENDED;
    push(agent, AGENT_RECORD, a);
}

void agent_recorded(struct agent *agent, struct agent_attempt *a)
{
    if (!a->recorded) {
        end(agent, a);
    }
}

static void stop(struct agent *agent, struct agent_attempt *a, uint64_t grace_ms,
                 const char *reason)
{
    if (a->stage == AGENT_ENDED) {
        return;
    }
    if (!a->stop_wanted || grace_ms < a->stop_grace_ms) {
        a->stop_grace_ms = grace_ms;
    }
    a->stop_wanted = true;
    free(a->stop_reason);
    a->stop_reason = mem_strdup(reason);
    if (a->stage == AGENT_WAITING) {
        end_by_worker(agent, a);
    } else if (a->stage != AGENT_PERSISTING) {
        push(agent, AGENT_STOP, a);
    }
}

/* ---- orders */

struct agent_attempt *agent_order_start(struct agent *agent, uint64_t token, uint64_t job,
                                        uint64_t epoch, uint32_t rank_first, uint32_t rank_count)
{
    struct agent_attempt *a = agent_find(agent, job, epoch);
    if (a != NULL && a->stage == AGENT_PERSISTING) {
        answer(agent, a->start_token, ERR_AGAIN, "asked again before the order was durable");
        a->start_token = token;
        return NULL;
    }
    if (a != NULL) {
        answer(agent, token, 0, "%s", "");
        return NULL;
    }
    const struct agent_attempt *later = newer(agent, job, epoch);
    if (later != NULL) {
        answer(agent, token, ERR_STALE, "job %llu: epoch %llu is older than %llu, which is here",
               (unsigned long long)job, (unsigned long long)epoch,
               (unsigned long long)later->epoch);
        return NULL;
    }
    for (size_t i = 0; i < agent->count; i++) {
        if (agent->attempts[i]->job == job) {
            stop(agent, agent->attempts[i], 0, "replaced by a newer attempt of the job");
        }
    }
    a = add(agent, job, epoch, rank_first, rank_count, AGENT_PERSISTING);
    a->start_token = token;
    push(agent, AGENT_PERSIST, a);
    return a;
}

void agent_order_stop(struct agent *agent, uint64_t token, uint64_t job, uint64_t epoch,
                      uint64_t grace_ms, const char *reason)
{
    struct agent_attempt *a = agent_find(agent, job, epoch);
    if (a == NULL) {
        /* Never here, or lost with its folder: it has no process, and saying so is all there is to
         * do. */
        a = add(agent, job, epoch, 0, 0, AGENT_WAITING);
        end(agent, a);
    } else {
        stop(agent, a, grace_ms, reason);
    }
    answer(agent, token, 0, "%s", "");
}

void agent_order_forget(struct agent *agent, uint64_t token, uint64_t job, uint64_t epoch)
{
    struct agent_attempt *a = agent_find(agent, job, epoch);
    if (a != NULL && a->recorded) {
        remove_attempt(agent, a);
    } else if (a != NULL) {
        a->forget_wanted = true;
        stop(agent, a, 0, "the coordinator has given it up");
    }
    answer(agent, token, 0, "%s", "");
}

void agent_stop_all(struct agent *agent, uint64_t grace_ms, const char *reason)
{
    for (size_t i = 0; i < agent->count; i++) {
        stop(agent, agent->attempts[i], grace_ms, reason);
    }
}

/* ---- what happened */

void agent_persisted(struct agent *agent, struct agent_attempt *a, int code, const char *text)
{
    assert(a->stage == AGENT_PERSISTING);
    answer(agent, a->start_token, code, "%s", text);
    if (code != 0) {
        a->error = mem_strdup(text);
        end(agent, a);
        return;
    }
    a->accepted = true;
    if (a->stop_wanted) {
        end_by_worker(agent, a);
        return;
    }
    tell(agent, a);
    launch_or_wait(agent, a);
}

static void clear_exits(struct agent_attempt *a)
{
    for (uint32_t i = 0; i < a->rank_count; i++) {
        free(a->exits[i].last_words);
        a->exits[i] = (struct agent_exit){0};
    }
}

void agent_launch_failed(struct agent *agent, struct agent_attempt *a, const char *text,
                         int64_t now_ms)
{
    assert(a->stage == AGENT_LAUNCHING);
    clear_exits(a);
    a->error = mem_strdup(text);
    a->ended_at_ms = now_ms;
    end_by_worker(agent, a);
}

struct agent_attempt *agent_adopt(struct agent *agent, uint64_t job, uint64_t epoch,
                                  uint32_t rank_first, uint32_t rank_count)
{
    assert(agent_find(agent, job, epoch) == NULL);
    struct agent_attempt *a = add(agent, job, epoch, rank_first, rank_count, AGENT_LAUNCHING);
    a->accepted = true;
    tell(agent, a);
    return a;
}

void agent_launch_adopted(struct agent *agent, struct agent_attempt *a)
{
    assert(a->stage == AGENT_LAUNCHING);
    launch_or_wait(agent, a);
}

bool agent_has_rank(const struct agent_attempt *a, uint32_t rank)
{
    return rank >= a->rank_first && rank - a->rank_first < a->rank_count;
}

bool agent_shim_exit(struct agent_attempt *a, uint32_t rank, int32_t code, int32_t signal,
                     int64_t at_ms, const char *last_words)
{
    if (!agent_has_rank(a, rank) || a->exits[rank - a->rank_first].known) {
        return false;
    }
    a->exits[rank - a->rank_first] =
        (struct agent_exit){true, code, signal, at_ms, mem_strdup(last_words)};
    a->news = true;
    return true;
}

void agent_shim(struct agent *agent, struct agent_attempt *a, const struct agent_shim_word *word)
{
    if (a->stage == AGENT_ENDED) {
        return; /* said again after a reconnection */
    }
    assert(a->stage == AGENT_LAUNCHING || a->stage == AGENT_RUNNING);
    const char *stuck = word->stuck != NULL ? word->stuck : "";
    const char *stuck_before = a->stuck != NULL ? a->stuck : "";
    if (strcmp(stuck, stuck_before) != 0) {
        free(a->stuck);
        a->stuck = mem_strdup(word->stuck);
        a->news = true;
    }
    if (word->started && a->stage == AGENT_LAUNCHING) {
        a->stage = AGENT_RUNNING;
        a->started_at_ms = word->started_at_ms;
        a->news = true;
    }
    bool news = a->news;
    a->news = false;
    if (word->ended) {
        a->ended_at_ms = word->ended_at_ms;
        if (word->error != NULL) {
            clear_exits(a);
            a->error = mem_strdup(word->error);
        }
        end(agent, a);
    } else if (news) {
        tell(agent, a);
    }
}

void agent_shim_lost(struct agent *agent, struct agent_attempt *a, const char *why, int64_t now_ms)
{
    if (a->stage == AGENT_ENDED) {
        return;
    }
    for (uint32_t i = 0; i < a->rank_count; i++) {
        agent_shim_exit(a, a->rank_first + i, -1, 9, now_ms, why);
    }
    a->news = false;
    a->ended_at_ms = now_ms;
    end_by_worker(agent, a);
}

void agent_removed(struct agent *agent, struct agent_attempt *a)
{
    forget_actions_of(agent, a);
    for (size_t i = 0; i < agent->count; i++) {
        if (agent->attempts[i] == a) {
            memmove(agent->attempts + i, agent->attempts + i + 1,
                    (agent->count - i - 1) * sizeof(struct agent_attempt *));
            agent->count--;
            break;
        }
    }
    attempt_destroy(a);
}

void agent_rank_busy(struct agent *agent, struct agent_attempt *a, uint32_t rank, int delta)
{
    assert(agent_has_rank(a, rank));
    uint32_t local = rank - a->rank_first;
    if (delta > 0) {
        a->busy[local]++;
        return;
    }
    assert(a->busy[local] > 0);
    a->busy[local]--;
    if (a->busy[local] == 0 && (a->exits[local].known || a->stage == AGENT_ENDED)) {
        tell(agent, a); /* its exit, and perhaps the end, was held back for this */
    }
}

/* ---- the link */

void agent_registering(struct agent *agent)
{
    for (size_t i = 0; i < agent->count; i++) {
        struct agent_attempt *a = agent->attempts[i];
        a->sent = agent_phase(a) > 0 ? a->version : a->acked;
    }
}

void agent_registered(struct agent *agent)
{
    agent->registered = true;
    for (size_t i = 0; i < agent->count; i++) {
        struct agent_attempt *a = agent->attempts[i];
        a->acked = a->sent;
        offer_report(agent, a);
    }
}

void agent_link_lost(struct agent *agent)
{
    agent->registered = false;
}

void agent_acked(struct agent *agent, struct agent_attempt *a, uint64_t version)
{
    if (version > a->acked && version <= a->sent) {
        a->acked = version;
        offer_report(agent, a);
    }
}

/* ---- what may be told */

static bool any_busy(const struct agent_attempt *a)
{
    for (uint32_t i = 0; i < a->rank_count; i++) {
        if (a->busy[i] > 0) {
            return true;
        }
    }
    return false;
}

uint32_t agent_phase(const struct agent_attempt *a)
{
    if (!a->accepted) {
        return 0;
    }
    if (a->recorded && !any_busy(a)) {
        return 3;
    }
    return a->started_at_ms != 0 ? 2 : 1;
}

bool agent_exit_is_told(const struct agent_attempt *a, uint32_t local_rank)
{
    return a->exits[local_rank].known && a->busy[local_rank] == 0;
}
