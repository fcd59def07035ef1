#include "daemon/core/job_wait.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/job.h"
#include "lib/err.h"
#include "lib/mem.h"

/* ---------------------------------------------------------------- outcomes */

#define OUTCOME_BITS 2

enum job_outcome job_outcome(const struct core *core, uint64_t id)
{
    return id < core->outcomes.capacity ? (enum job_outcome)(core->outcomes.items[id] & 3)
                                        : OUTCOME_NONE;
}

static uint32_t past_array_size(const struct core *core, uint64_t id)
{
    return id < core->outcomes.capacity ? core->outcomes.items[id] >> OUTCOME_BITS : 0;
}

void job_outcome_set(struct core *core, uint64_t id, enum job_outcome outcome, uint32_t array_size)
{
    struct outcomes *o = &core->outcomes;
    if (id >= o->capacity) {
        size_t old = o->capacity;
        void *items = o->items;
        mem_grow(&items, &o->capacity, id + 1, sizeof *o->items);
        o->items = items;
        memset(o->items + old, 0, (o->capacity - old) * sizeof *o->items);
    }
    o->items[id] = (uint32_t)outcome | array_size << OUTCOME_BITS;
}

bool job_wait_is_known(const struct core *core, uint64_t id)
{
    return core_job(core, id) != NULL || job_outcome(core, id) != OUTCOME_NONE;
}

void job_wait_fini(struct core *core)
{
    for (size_t i = 0; i < core->arrays.capacity; i++) { /* in no order: they are only freed */
        struct array *array = core->arrays.slots[i].value;
        if (core->arrays.slots[i].id != 0) {
            free(array->dependents);
            free(array);
        }
    }
    map_fini(&core->arrays);
    free(core->outcomes.items);
}

/* ---------------------------------------------------------------- needs */

enum answer { MET, NOT_YET, NEVER };

static bool is_first_of_array(const struct core *core, uint64_t id, uint32_t *size)
{
    const struct job *job = core_job(core, id);
    *size = past_array_size(core, id);
    if (job != NULL && job->row.array_id == id) {
        *size = (uint32_t)job->row.array_size;
    }
    return *size > 0;
}

static uint32_t count_bad(const struct core *core, uint64_t id, uint32_t size)
{
    uint32_t bad = 0;
    for (uint64_t i = id; i < id + size; i++) {
        enum job_outcome outcome = job_outcome(core, i);
        bad += outcome == OUTCOME_FAILED || outcome == OUTCOME_CANCELLED;
    }
    return bad;
}

/* all_started: or ended; over: none is live; bad: how many have ended in another way than well. */
static enum answer judge(enum dependency_kind kind, bool all_started, bool over, uint32_t bad)
{
    switch (kind) {
    case DEPENDENCY_AFTER:
        return all_started ? MET : NOT_YET;
    case DEPENDENCY_AFTER_ANY:
        return over ? MET : NOT_YET;
    case DEPENDENCY_AFTER_OK:
        return bad > 0 ? NEVER : over ? MET : NOT_YET;
    case DEPENDENCY_AFTER_NOT_OK:
    default:
        return !over ? NOT_YET : bad > 0 ? MET : NEVER;
    }
}

static enum answer ask(const struct core *core, struct dependency need)
{
    uint32_t size;
    if (is_first_of_array(core, need.job, &size)) {
        const struct array *array = map_get(&core->arrays, need.job);
        if (array != NULL) {
            return judge(need.kind, array->unstarted == 0, false, array->bad);
        }
        return judge(need.kind, true, true, count_bad(core, need.job, size));
    }
    const struct job *job = core_job(core, need.job);
    if (job != NULL) {
        return judge(need.kind, job->row.epoch > 0, false, 0);
    }
    return judge(need.kind, true, true, job_outcome(core, need.job) != OUTCOME_COMPLETED);
}

/* Writes the needs into the row when they changed. */
static void write_needs(struct core *core, struct job *job)
{
    char *text = dependencies_format(job->needs, job->need_count, false);
    row_set_text(&job->row.dependencies, text);
    free(text);
    core_mark(core, TABLE_JOB, &job->row);
}

static void remove_dependent(struct job **list, size_t *count, const struct job *job)
{
    size_t kept = 0;
    for (size_t i = 0; i < *count; i++) {
        if (list[i] != job) {
            list[kept++] = list[i];
        }
    }
    *count = kept;
}

/* Nobody may tell a job that does not ask any more: it may be gone by then. */
static void unregister(struct core *core, struct job *job, uint64_t id)
{
    struct array *array = map_get(&core->arrays, id);
    struct job *other = core_job(core, id);
    if (array != NULL) {
        remove_dependent(array->dependents, &array->dependent_count, job);
    } else if (other != NULL) {
        remove_dependent(other->dependents, &other->dependent_count, job);
    }
}

static bool needs_job(const struct job *job, uint64_t id)
{
    for (size_t i = 0; i < job->need_count; i++) {
        if (job->needs[i].job == id) {
            return true;
        }
    }
    return false;
}

static void drop(struct core *core, struct job *job, enum answer answer)
{
    size_t before = job->need_count;
    for (size_t i = before; i-- > 0;) {
        struct dependency need = job->needs[i];
        if (ask(core, need) == answer) {
            memmove(job->needs + i, job->needs + i + 1,
                    (job->need_count - i - 1) * sizeof *job->needs);
            job->need_count--;
            if (!needs_job(job, need.job)) {
                unregister(core, job, need.job);
            }
        }
    }
    size_t kept = job->need_count;
    if (kept != before) {
        write_needs(core, job);
    }
    if (kept == 0) {
        free(job->needs);
        job->needs = NULL;
    }
}

void job_wait_waive(struct core *core, struct job *job)
{
    drop(core, job, NEVER);
}

/* False when something can never be met: a sentence about it in text. */
static bool can_be_met(const struct core *core, const struct job *job, char *text,
                       size_t text_bytes)
{
    static const char *const wanted[] = {"start", "end", "complete", "fail"};
    for (size_t i = 0; i < job->need_count; i++) {
        const struct dependency *need = &job->needs[i];
        if (ask(core, *need) == NEVER) {
            snprintf(text, text_bytes,
                     "it was to wait for job %" PRIu64 " to %s, which did not happen", need->job,
                     wanted[need->kind]);
            return false;
        }
    }
    return true;
}

bool job_wait_review(struct core *core, struct job *job, char *text, size_t text_bytes)
{
    drop(core, job, MET);
    return can_be_met(core, job, text, text_bytes);
}

bool job_wait_preview(const struct core *core, struct job *job, char *text, size_t text_bytes)
{
    size_t kept = 0;
    for (size_t i = 0; i < job->need_count; i++) {
        if (ask(core, job->needs[i]) != MET) {
            job->needs[kept++] = job->needs[i];
        }
    }
    job->need_count = kept;
    return can_be_met(core, job, text, text_bytes);
}

void job_wait_text(const struct core *core, const struct job *job, char *text, size_t text_bytes)
{
    static const char *const wanted[] = {"has started", "has ended", "has completed", "has failed"};
    const struct dependency *need = &job->needs[0];
    const struct job *other = core_job(core, need->job);
    uint32_t size;
    bool is_array = is_first_of_array(core, need->job, &size);
    char more[48] = "";
    if (job->need_count > 1) {
        snprintf(more, sizeof more, ", and for %zu other jobs", job->need_count - 1);
    }
    snprintf(text, text_bytes, "waits until %s %" PRIu64 " (%s) %s%s%s", is_array ? "array" : "job",
             need->job, other != NULL ? other->row.name : "ended", wanted[need->kind],
             other != NULL ? ", which is " : "",
             other != NULL ? job_state_names[other->row.state] : "");
    size_t used = strlen(text);
    snprintf(text + used, text_bytes - used, "%s", more);
}

/* ---------------------------------------------------------------- who depends on whom */

static void add_dependent(struct job ***list, size_t *count, size_t *capacity, struct job *job)
{
    void *items = *list;
    mem_grow(&items, capacity, *count + 1, sizeof **list);
    *list = items;
    (*list)[(*count)++] = job;
}

static void register_need(struct core *core, struct job *job, uint64_t id)
{
    struct array *array = map_get(&core->arrays, id);
    struct job *other = core_job(core, id);
    if (array != NULL) {
        add_dependent(&array->dependents, &array->dependent_count, &array->dependent_capacity, job);
    } else if (other != NULL) {
        add_dependent(&other->dependents, &other->dependent_count, &other->dependent_capacity, job);
    }
}

static void add_need(struct core *core, struct job *job, struct dependency need)
{
    job->needs = mem_resize(job->needs, (job->need_count + 1) * sizeof *job->needs);
    job->needs[job->need_count++] = need;
    register_need(core, job, need.job);
}

static struct array *join_array(struct core *core, struct job *job)
{
    struct array *array = map_get(&core->arrays, job->row.array_id);
    if (array == NULL) {
        array = mem_alloc(sizeof *array);
        array->id = job->row.array_id;
        array->size = (uint32_t)job->row.array_size;
        array->bad = count_bad(core, array->id, array->size);
        map_set(&core->arrays, array->id, array);
    }
    array->live++;
    array->unstarted += job->row.epoch == 0;
    return array;
}

void job_wait_bind(struct core *core, struct job *job)
{
    if (job->row.array_id != 0) {
        job->array = join_array(core, job);
    }
}

void job_wait_load_done(struct core *core, struct job *job)
{
    struct err err;
    bool singleton;
    if (job->row.dependencies != NULL &&
        dependencies_parse(job->row.dependencies, &job->needs, &job->need_count, &singleton,
                           &err) == 0) {
        for (size_t i = 0; i < job->need_count; i++) {
            register_need(core, job, job->needs[i].job);
        }
    }
}

/* An array is waited for as a whole: the id of its first job means all of them. Among themselves
 * the jobs of an array keep their turn by its limit, which is one then. */
void job_wait_singleton(struct core *core, struct job *job)
{
    for (struct job *other = job->prev; other != NULL; other = other->prev) {
        uint64_t array = other->row.array_id;
        uint64_t id = array != 0 ? array : other->row.id;
        if (strcmp(other->row.name, job->row.name) == 0 &&
            strcmp(other->row.user, job->row.user) == 0 &&
            (array == 0 || array != job->row.array_id) && !needs_job(job, id)) {
            add_need(core, job, (struct dependency){DEPENDENCY_AFTER_ANY, id});
        }
    }
    if (job->need_count > 0) {
        write_needs(core, job);
    }
}

/* Something happened that this job may have waited for. */
static void reconsider(struct core *core, struct job *job)
{
    char text[256];
    if (job->need_count == 0 || job->row.state != JOB_PENDING) {
        return;
    }
    if (!job_wait_review(core, job, text, sizeof text)) {
        job_put_on_hold(core, job, "dependency", text);
    } else if (job->need_count == 0 && !job->queued) {
        if (job->row.eligible_ms < core->now_ms) {
            job->row.eligible_ms = core->now_ms;
            core_mark(core, TABLE_JOB, &job->row);
        }
        job_enqueue(core, job);
    }
}

/* From the end, because whoever needs nothing more leaves the list. */
static void reconsider_all(struct core *core, struct job **list, const size_t *count)
{
    for (size_t i = *count; i-- > 0;) {
        if (i < *count) {
            reconsider(core, list[i]);
        }
    }
}

void job_wait_started(struct core *core, struct job *job)
{
    if (job->array != NULL) {
        job->array->unstarted--;
        reconsider_all(core, job->array->dependents, &job->array->dependent_count);
    }
    reconsider_all(core, job->dependents, &job->dependent_count);
}

static void leave_array(struct core *core, struct job *job, bool bad)
{
    struct array *array = job->array;
    array->bad += bad;
    array->unstarted -= job->row.epoch == 0;
    job->array = NULL;
    if (--array->live > 0) {
        reconsider_all(core, array->dependents, &array->dependent_count);
        return;
    }
    map_remove(&core->arrays, array->id); /* from here on its outcomes speak for it */
    reconsider_all(core, array->dependents, &array->dependent_count);
    free(array->dependents);
    free(array);
}

void job_wait_ended(struct core *core, struct job *job, enum job_outcome outcome)
{
    uint64_t id = job->row.id;
    bool is_first = job->row.array_id == id;
    job_outcome_set(core, id, outcome, is_first ? (uint32_t)job->row.array_size : 0);
    for (size_t i = 0; i < job->need_count; i++) {
        unregister(core, job, job->needs[i].job);
    }
    job->need_count = 0;
    if (job->array != NULL) {
        leave_array(core, job, outcome != OUTCOME_COMPLETED);
    }
    reconsider_all(core, job->dependents, &job->dependent_count);
}

void job_wait_add(struct core *core, struct job *job, const struct dependency *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        add_need(core, job, list[i]);
    }
    if (count > 0) {
        write_needs(core, job);
    }
}
