#include "daemon/core/ledger.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/core/price.h"
#include "lib/hash.h"

#define MS_PER_HOUR 3600000

int64_t ledger_cost(int64_t ms, int64_t micro_usd_per_gpu_hour)
{
    assert(ms >= 0 && micro_usd_per_gpu_hour >= 0);
    /* Whole hours are exact; so only the rest is rounded, and nothing overflows. */
    int64_t rest = ms % MS_PER_HOUR * micro_usd_per_gpu_hour;
    return ms / MS_PER_HOUR * micro_usd_per_gpu_hour + (rest + MS_PER_HOUR / 2) / MS_PER_HOUR;
}

void ledger_row_hash(const struct ledger_row *row, const uint8_t previous[ROW_HASH_BYTES],
                     uint8_t hash[ROW_HASH_BYTES])
{
    char text[256];
    char job[24] = "", epoch[24] = "";
    if (row->job_id != 0) {
        snprintf(job, sizeof job, "%" PRIu64, row->job_id);
    }
    if (row->epoch != 0) {
        snprintf(epoch, sizeof epoch, "%" PRIu64, row->epoch);
    }
    /* The leading byte stands for 0x00. */
    int len =
        snprintf(text, sizeof text,
                 " %" PRIu64 "|%" PRIu64 "|%s|%s|%s|%" PRId64 "|%" PRId64 "|%" PRIu64 "|%" PRId64,
                 row->seq, row->gpu_id, category_names[row->category], job, epoch, row->start_ms,
                 row->end_ms, row->price_id, row->cost_micro_usd);
    assert(len > 0 && (size_t)len < sizeof text);
    text[0] = 0x00;
    uint8_t link[1 + 2 * ROW_HASH_BYTES];
    link[0] = 0x01;
    memcpy(link + 1, previous, ROW_HASH_BYTES);
    hash_sha256(text, (size_t)len, link + 1 + ROW_HASH_BYTES);
    hash_sha256(link, sizeof link, hash);
}

static void append(struct core *core, const struct gpu *gpu, enum category category,
                   int64_t from_ms, int64_t to_ms)
{
#ifdef MUTANT_ledger_interval
    if (category == CATEGORY_RECOVERY) {
        return;
    }
#endif
    struct ledger_row *row = core_append(core, TABLE_LEDGER);
    row->seq = ++core->ledger_seq;
    row->gpu_id = gpu->row.id;
    row->category = category;
    row->job_id = gpu->row.job_id;
    row->epoch = gpu->row.epoch;
    row->start_ms = from_ms;
    row->end_ms = to_ms;
    row->price_id = gpu->row.price_id;
    row->cost_micro_usd = ledger_cost(to_ms - from_ms, price_micro_usd(core, gpu->row.price_id));
    ledger_row_hash(row, core->ledger_head, row->hash);
    memcpy(core->ledger_head, row->hash, sizeof core->ledger_head);
}

/* Books [since_ms, to_ms) of the meter under one category, cut where the price changes, and moves
 * since_ms. */
static void book(struct core *core, struct gpu *gpu, enum category category, int64_t to_ms)
{
    while (gpu->row.since_ms < to_ms) {
        int64_t cut_ms = gpu->row.since_ms;
        uint64_t price_id;
        do {
            cut_ms = price_next_change(core, cut_ms);
            cut_ms = cut_ms < to_ms ? cut_ms : to_ms;
            price_id = price_at(core, gpu->row.model, cut_ms);
        } while (cut_ms < to_ms && price_id == gpu->row.price_id);
        append(core, gpu, category, gpu->row.since_ms, cut_ms);
        gpu->row.since_ms = cut_ms;
        gpu->row.price_id = price_id;
    }
}

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

static void close_productive(struct core *core, struct gpu *gpu, int64_t to_ms, int64_t kept_ms)
{
    const struct job *job = core_job(core, gpu->row.job_id);
    assert(job != NULL && job->attempt != NULL && (uint64_t)job->row.epoch == gpu->row.epoch);
    const struct attempt_row *attempt = &job->attempt->row;
    int64_t kept_until_ms = clamp(kept_ms, gpu->row.since_ms, to_ms);
    bool all = kept_until_ms == to_ms;
    int64_t left_ms = kept_until_ms - gpu->row.since_ms;
    int64_t stall_ms = attempt->stall_kept_ms + (all ? attempt->stall_open_ms : 0);
    stall_ms = clamp(stall_ms, 0, left_ms);
    int64_t wait_ms = attempt->wait_kept_ms + (all ? attempt->wait_open_ms : 0);
    wait_ms = clamp(wait_ms, 0, left_ms - stall_ms);
    book(core, gpu, CATEGORY_PRODUCTIVE, kept_until_ms - stall_ms - wait_ms);
    book(core, gpu, CATEGORY_DATA_WAIT, kept_until_ms - stall_ms);
    book(core, gpu, CATEGORY_CHECKPOINT_STALL, kept_until_ms);
    book(core, gpu, CATEGORY_LOST_PROGRESS, to_ms);
}

static void close_interval(struct core *core, struct gpu *gpu, int64_t to_ms, int64_t kept_ms)
{
    if (gpu->row.category == CATEGORY_PRODUCTIVE) {
        close_productive(core, gpu, to_ms, kept_ms);
    } else {
        book(core, gpu, gpu->row.category, to_ms);
    }
    core_mark(core, TABLE_GPU, &gpu->row);
}

void meter_open(struct core *core, struct gpu *gpu, enum category category)
{
    gpu->row.category = category;
    gpu->row.since_ms = core->now_ms;
    gpu->row.price_id = price_at(core, gpu->row.model, core->now_ms);
    core_mark(core, TABLE_GPU, &gpu->row);
}

void meter_switch(struct core *core, struct gpu *gpu, enum category category, uint64_t job,
                  uint64_t epoch, int64_t kept_ms)
{
    if (gpu->row.category == category && gpu->row.job_id == job && gpu->row.epoch == epoch) {
        return;
    }
    close_interval(core, gpu, core->now_ms, kept_ms);
    gpu->row.category = category;
    gpu->row.job_id = job;
    gpu->row.epoch = epoch;
}

void meter_set_model(struct core *core, struct gpu *gpu, const char *model)
{
    close_interval(core, gpu, core->now_ms, INT64_MAX);
    row_set_text(&gpu->row.model, model);
    gpu->row.price_id = price_at(core, model, core->now_ms);
}

/* The waits are of the attempt as a whole, so all its meters are closed together. */
static void reprice_attempt(struct core *core, struct attempt *attempt, int64_t at_ms)
{
    for (uint32_t i = 0; i < attempt->allocation_count; i++) {
        struct gpu *gpu = attempt->allocations[i].gpu;
        if (gpu->allocation == &attempt->allocations[i]) {
            close_interval(core, gpu, at_ms, INT64_MAX);
        }
    }
    attempt->row.stall_kept_ms = attempt->row.stall_open_ms = 0;
    attempt->row.wait_kept_ms = attempt->row.wait_open_ms = 0;
    core_mark(core, TABLE_ATTEMPT, &attempt->row);
}

void meter_reprice(struct core *core)
{
    for (size_t i = 0; i < core->gpu_count; i++) {
        struct gpu *gpu = core->gpus[i];
        uint64_t price_id = price_at(core, gpu->row.model, core->now_ms);
        if (price_id == gpu->row.price_id) {
            continue;
        }
        int64_t effective_ms = core->prices[price_id - 1]->row.effective_ms;
        int64_t at_ms = clamp(effective_ms, gpu->row.since_ms, core->now_ms);
        if (gpu->row.category == CATEGORY_PRODUCTIVE) {
            reprice_attempt(core, core_job(core, gpu->row.job_id)->attempt, at_ms);
        } else {
            close_interval(core, gpu, at_ms, INT64_MAX);
        }
        gpu->row.price_id = price_id;
    }
}

void meter_add_waits(struct core *core, struct attempt *attempt, int64_t stall_ms, int64_t wait_ms)
{
    if (stall_ms == 0 && wait_ms == 0) {
        return;
    }
    attempt->row.stall_open_ms += stall_ms;
    attempt->row.wait_open_ms += wait_ms;
    core_mark(core, TABLE_ATTEMPT, &attempt->row);
}

void meter_keep_waits(struct core *core, struct attempt *attempt)
{
    attempt->row.stall_kept_ms += attempt->row.stall_open_ms;
    attempt->row.wait_kept_ms += attempt->row.wait_open_ms;
    attempt->row.stall_open_ms = attempt->row.wait_open_ms = 0;
    core_mark(core, TABLE_ATTEMPT, &attempt->row);
}
