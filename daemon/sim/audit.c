#include "daemon/sim/audit.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/ledger.h"
#include "daemon/core/load.h"
#include "daemon/core/price.h"
#include "lib/mem.h"

#define ROWS(core, TABLE, type, row)                                                               \
    for (size_t i_ = 0, n_ = change_count(core_changes(core, TABLE)); i_ < n_; i_++)               \
        for (const struct type *row = change_row(core_changes(core, TABLE), i_); row != NULL;      \
             row = NULL)

void audit_fini(struct audit *a)
{
    for (size_t i = 0; i < a->job_count; i++) {
        free(a->jobs[i].name);
        free(a->jobs[i].stage);
    }
    free(a->gpus);
    free(a->jobs);
    free(a->prices);
    free(a->spares);
    *a = (struct audit){0};
}

static struct audit_gpu *gpu_at(struct audit *a, uint64_t id)
{
    void *gpus = a->gpus;
    size_t old = a->gpu_capacity;
    mem_grow(&gpus, &a->gpu_capacity, id, sizeof *a->gpus);
    a->gpus = gpus;
    if (a->gpu_capacity > old) {
        memset(a->gpus + old, 0, (a->gpu_capacity - old) * sizeof *a->gpus);
    }
    a->gpu_count = a->gpu_count > id ? a->gpu_count : id;
    return &a->gpus[id - 1];
}

static struct audit_job *job_at(struct audit *a, uint64_t id)
{
    void *jobs = a->jobs;
    size_t old = a->job_capacity;
    mem_grow(&jobs, &a->job_capacity, id, sizeof *a->jobs);
    a->jobs = jobs;
    if (a->job_capacity > old) {
        memset(a->jobs + old, 0, (a->job_capacity - old) * sizeof *a->jobs);
    }
    a->job_count = a->job_count > id ? a->job_count : id;
    return &a->jobs[id - 1];
}

/* Prices are given, not decided: they are taken as they stand. */
static bool take_price(struct audit *a, const struct core *core, uint64_t id)
{
    if (id == 0 || id > 1000000) {
        return false;
    }
    while (a->price_count < id) {
        void *prices = a->prices;
        mem_grow(&prices, &a->price_capacity, a->price_count + 1, sizeof *a->prices);
        a->prices = prices;
        a->prices[a->price_count] = price_micro_usd(core, a->price_count + 1);
        a->price_count++;
    }
    return true;
}

static bool is_final(enum job_state state)
{
    return state == JOB_COMPLETED || state == JOB_FAILED || state == JOB_CANCELLED;
}

static int take_jobs(struct audit *a, const struct core *core, struct err *err)
{
    ROWS(core, TABLE_JOB, job_row, row)
    {
        struct audit_job *job = job_at(a, row->id);
        if (is_final(job->state) && job->name != NULL) {
            return err_set(err, ERR_CORRUPT, "job %" PRIu64 " changed after it had ended", row->id);
        }
        if (job->name == NULL) {
            job->name = mem_strdup(row->name);
            job->stage = mem_strdup(row->stage);
        }
        job->state = row->state;
        job->submitted_ms = row->submitted_ms;
        job->started_ms = row->started_ms;
        job->ended_ms = row->ended_ms;
        job->restarts = row->restarts;
    }
    return 0;
}

static int take_attempts(struct audit *a, const struct core *core, struct err *err)
{
    ROWS(core, TABLE_ATTEMPT, attempt_row, row)
    {
        struct audit_job *job = job_at(a, row->job_id);
        if (row->epoch != job->epoch) {
            if (row->epoch != job->epoch + 1 || job->attempt_live) {
                return err_set(err, ERR_CORRUPT,
                               "attempt %" PRIu64 " of job %" PRIu64 " began while %" PRIu64 " was "
                               "the newest and %s",
                               row->epoch, row->job_id, job->epoch,
                               job->attempt_live ? "live" : "over");
            }
            job->epoch = row->epoch;
            job->epoch_commit = a->commits;
            job->attempt_live = true;
            a->attempts++;
        } else if (!job->attempt_live) {
            return err_set(err, ERR_CORRUPT, "attempt %" PRIu64 " of job %" PRIu64 " came back",
                           row->epoch, row->job_id);
        }
        if (row->state == ATTEMPT_ENDED) {
            job->attempt_live = false;
            a->lost_steps += row->lost_steps != ROW_NONE ? (uint64_t)row->lost_steps : 0;
        }
    }
    return 0;
}

/* In one batch an accelerator may be released and allocated again: releases first. */
static int take_allocations(struct audit *a, const struct core *core, struct err *err)
{
    ROWS(core, TABLE_ALLOCATION, allocation_row, row)
    {
        struct audit_gpu *gpu = gpu_at(a, row->gpu_id);
        if (row->released_ms != ROW_NONE && gpu->job == row->job_id && gpu->epoch == row->epoch) {
            gpu->job = gpu->epoch = 0;
        }
    }
    ROWS(core, TABLE_ALLOCATION, allocation_row, row)
    {
        struct audit_gpu *gpu = gpu_at(a, row->gpu_id);
        if (row->released_ms != ROW_NONE) {
            continue;
        }
        if (gpu->job != 0 && (gpu->job != row->job_id || gpu->epoch != row->epoch)) {
            return err_set(err, ERR_CORRUPT,
                           "accelerator %" PRIu64 " is in two live allocations: job %" PRIu64
                           " and job %" PRIu64,
                           row->gpu_id, gpu->job, row->job_id);
        }
        gpu->job = row->job_id;
        gpu->epoch = row->epoch;
    }
    return 0;
}

static void book(struct audit *a, enum category category, uint64_t job, int64_t ms, int64_t cost)
{
    a->gpu_ms[category] += ms;
    a->cost_micro_usd += cost;
    if (job != 0) {
        struct audit_job *j = job_at(a, job);
        j->gpu_ms[category] += ms;
        j->cost_micro_usd += cost;
    }
}

static int64_t cost_of(const struct audit *a, uint64_t price, int64_t ms)
{
    /* Round half up of ms * price / 3,600,000, in wider arithmetic than the core's. */
    __extension__ typedef __int128 wide;
    wide product = (wide)ms * a->prices[price - 1];
    return (int64_t)((product * 2 + 3600000) / 7200000);
}

static int take_ledger(struct audit *a, const struct core *core, struct err *err)
{
    ROWS(core, TABLE_LEDGER, ledger_row, row)
    {
        uint8_t hash[ROW_HASH_BYTES];
        ledger_row_hash(row, a->head, hash);
        if (row->seq != ++a->ledger_rows || memcmp(hash, row->hash, sizeof hash) != 0) {
            return err_set(err, ERR_CORRUPT,
                           "ledger row %" PRIu64 " does not follow the one before", row->seq);
        }
        memcpy(a->head, hash, sizeof hash);
        struct audit_gpu *gpu = gpu_at(a, row->gpu_id);
        if (gpu->first_ms == 0) {
            gpu->first_ms = gpu->booked_ms = row->start_ms;
        }
        if (row->start_ms != gpu->booked_ms || row->end_ms <= row->start_ms) {
            return err_set(err, ERR_CORRUPT,
                           "accelerator %" PRIu64 " is booked from %" PRId64 " to %" PRId64
                           ", it was booked up to %" PRId64,
                           row->gpu_id, row->start_ms, row->end_ms, gpu->booked_ms);
        }
        gpu->booked_ms = row->end_ms;
        if (!take_price(a, core, row->price_id) ||
            cost_of(a, row->price_id, row->end_ms - row->start_ms) != row->cost_micro_usd) {
            return err_set(err, ERR_CORRUPT,
                           "ledger row %" PRIu64 " costs %" PRId64
                           " micro-dollars, which its price does not give",
                           row->seq, row->cost_micro_usd);
        }
        book(a, row->category, row->job_id, row->end_ms - row->start_ms, row->cost_micro_usd);
    }
    return 0;
}

static int take_meters(struct audit *a, const struct core *core, struct err *err)
{
    ROWS(core, TABLE_GPU, gpu_row, row)
    {
        struct audit_gpu *gpu = gpu_at(a, row->id);
        if (gpu->first_ms == 0) {
            gpu->first_ms = gpu->booked_ms = row->first_seen_ms;
        }
        if (row->since_ms != gpu->booked_ms) {
            return err_set(err, ERR_CORRUPT,
                           "the meter of accelerator %" PRIu64 " runs since %" PRId64
                           ", it is booked up to %" PRId64,
                           row->id, row->since_ms, gpu->booked_ms);
        }
        bool is_spare = row->category == CATEGORY_HELD && gpu->job == 0;
        if (row->job_id != gpu->job && !is_spare) {
            return err_set(err, ERR_CORRUPT,
                           "accelerator %" PRIu64 " is charged to job %" PRIu64
                           " and allocated to job %" PRIu64,
                           row->id, row->job_id, gpu->job);
        }
        gpu->category = row->category;
        gpu->meter_job = row->job_id;
        gpu->price = row->price_id;
        take_price(a, core, row->price_id);
    }
    return 0;
}

static int take_ckpts(struct audit *a, const struct core *core, struct err *err)
{
    ROWS(core, TABLE_CHECKPOINT, checkpoint_row, row)
    {
        if (row->state != CKPT_COMMITTED || row->committed_ms != core_now_ms(core)) {
            continue;
        }
        a->ckpts += !row->published;
        const struct audit_job *job = job_at(a, row->job_id);
        /* In one batch an attempt may commit, end, and be followed. */
        bool just_over = row->epoch + 1 == job->epoch && job->epoch_commit == a->commits;
        if (!row->published && row->epoch != job->epoch && !just_over) {
            return err_set(err, ERR_CORRUPT,
                           "checkpoint %" PRIu64 " of epoch %" PRIu64
                           " was committed in epoch %" PRIu64 " of job %" PRIu64,
                           row->id, row->epoch, job->epoch, row->job_id);
        }
    }
    return 0;
}

/* Whether something happened to the job in this commit. */
static bool is_touched(const struct core *core, uint64_t job)
{
    ROWS(core, TABLE_JOB, job_row, row)
    {
        if (row->id == job) {
            return true;
        }
    }
    return false;
}

static int take_nodes(struct audit *a, const struct core *core, struct err *err)
{
    ROWS(core, TABLE_NODE, node_row, row)
    {
        void *spares = a->spares;
        size_t old = a->spare_capacity;
        mem_grow(&spares, &a->spare_capacity, row->id, sizeof *a->spares);
        a->spares = spares;
        if (a->spare_capacity > old) {
            memset(a->spares + old, 0, (a->spare_capacity - old) * sizeof *a->spares);
        }
        uint64_t *spare = &a->spares[row->id - 1];
        if (*spare != 0 && row->spare_job != *spare && !is_touched(core, *spare)) {
            return err_set(err, ERR_CORRUPT,
                           "%s was a spare of job %" PRIu64 ", and was taken from it", row->name,
                           *spare);
        }
        *spare = row->spare_job;
    }
    return 0;
}

int audit_commit(struct audit *a, const struct core *core, struct err *err)
{
    a->commits++;
    ROWS(core, TABLE_EVENT, event_row, row)
    {
        a->events++;
        a->preemptions += strcmp(row->kind, "job.preempted") == 0;
    }
    TRY(take_jobs(a, core, err));
    TRY(take_nodes(a, core, err));
    TRY(take_attempts(a, core, err));
    TRY(take_allocations(a, core, err));
    TRY(take_ledger(a, core, err));
    TRY(take_meters(a, core, err));
    return take_ckpts(a, core, err);
}

int audit_close(struct audit *a, int64_t now_ms, struct err *err)
{
    int64_t reported_ms = 0, booked_ms = 0;
    for (size_t i = 0; i < a->gpu_count; i++) {
        struct audit_gpu *gpu = &a->gpus[i];
        int64_t open_ms = now_ms - gpu->booked_ms;
        if (open_ms > 0) {
            book(a, gpu->category, gpu->meter_job, open_ms, cost_of(a, gpu->price, open_ms));
            gpu->booked_ms = now_ms;
        }
        reported_ms += now_ms - gpu->first_ms;
    }
    for (int c = 0; c < CATEGORY_COUNT; c++) {
        booked_ms += a->gpu_ms[c];
    }
    if (booked_ms != reported_ms) {
        return err_set(err, ERR_CORRUPT,
                       "booked are %" PRId64 " ms of accelerators, there were %" PRId64, booked_ms,
                       reported_ms);
    }
    return 0;
}
