/* core_digest: over the rows in memory, in the order of their ids, column by column, by the table
 * descriptions that the store also uses. What is in memory is a function of what is in the tables,
 * so a reload gives the same digest. */
#include <string.h>

#include "daemon/core/state.h"
#include "lib/hash.h"

static uint64_t add_text(uint64_t digest, const char *text)
{
    static const char none[] = "\xff";
    return text != NULL ? hash_xxh3(text, strlen(text) + 1, digest) : hash_xxh3(none, 1, digest);
}

static uint64_t add_row(uint64_t digest, enum table_id id, const void *row)
{
    const struct table *table = &tables[id];
    digest = add_text(digest, table->name);
    for (size_t i = 0; i < table->column_count; i++) {
        const struct column *column = &table->columns[i];
        const char *field = (const char *)row + column->offset;
        switch (column->kind) {
        case COLUMN_TEXT:
            digest = add_text(digest, *(char *const *)field);
            break;
        case COLUMN_FLAG:
            digest = hash_xxh3(field, sizeof(bool), digest);
            break;
        case COLUMN_ENUM:
            digest = hash_xxh3(field, sizeof(enum category), digest);
            break;
        case COLUMN_HASH:
            digest = hash_xxh3(field, ROW_HASH_BYTES, digest);
            break;
        case COLUMN_REAL: {
            double value = *(const double *)field;
            if (isnan(value)) {
                value = (double)NAN; /* one of the many, as the table keeps but one */
            }
            digest = hash_xxh3(&value, sizeof value, digest);
            break;
        }
        case COLUMN_ID:
        case COLUMN_REF:
        case COLUMN_INT:
        case COLUMN_OPT:
            digest = hash_xxh3(field, sizeof(int64_t), digest);
            break;
        }
    }
    return digest;
}

static uint64_t add_attempt(uint64_t digest, const struct attempt *attempt)
{
    digest = add_row(digest, TABLE_ATTEMPT, &attempt->row);
    for (uint32_t i = 0; i < attempt->node_count; i++) {
        digest = add_row(digest, TABLE_ATTEMPT_NODE, &attempt->nodes[i].row);
    }
    for (uint32_t i = 0; i < attempt->allocation_count; i++) {
        digest = add_row(digest, TABLE_ALLOCATION, &attempt->allocations[i].row);
    }
    for (uint32_t i = 0; i < attempt->world_size; i++) {
        if (attempt->exits[i].known) {
            digest = add_row(digest, TABLE_RANK_EXIT, &attempt->exits[i].row);
        }
    }
    return digest;
}

static uint64_t add_ckpt(uint64_t digest, const struct ckpt *ckpt)
{
    digest = add_row(digest, TABLE_CHECKPOINT, &ckpt->row);
    bool has_shards = ckpt->row.state == CKPT_WRITING || ckpt->row.state == CKPT_COMMITTED;
    for (int64_t i = 0; has_shards && i < ckpt->row.world_size; i++) {
        if (ckpt->shards[i].known) {
            digest = add_row(digest, TABLE_CKPT_SHARD, &ckpt->shards[i].row);
        }
    }
    return digest;
}

uint64_t core_digest(const struct core *core)
{
    uint64_t counters[] = {core->next_job,   core->next_ckpt,  core->event_seq,
                           core->ledger_seq, core->keys.count, core->keys.digest};
    uint64_t digest = hash_xxh3(counters, sizeof counters, 0);
    digest = hash_xxh3(core->ledger_head, sizeof core->ledger_head, digest);
    for (size_t i = 0; i < core->price_count; i++) {
        digest = add_row(digest, TABLE_PRICE, &core->prices[i]->row);
    }
    for (size_t i = 0; i < core->node_count; i++) {
        digest = add_row(digest, TABLE_NODE, &core->nodes[i]->row);
    }
    for (size_t i = 0; i < core->gpu_count; i++) {
        digest = add_row(digest, TABLE_GPU, &core->gpus[i]->row);
    }
    for (size_t i = 0; i < core->queue_kinds; i++) {
        digest = add_row(digest, TABLE_QUEUE, &core->queues[i]->row);
    }
    for (size_t i = 0; i < core->account_count; i++) {
        digest = add_row(digest, TABLE_ACCOUNT, &core->accounts[i]->row);
    }
    for (size_t i = 0; i < core->member_count; i++) {
        digest = add_row(digest, TABLE_FAIR_USAGE, &core->members[i]->row);
    }
    for (size_t i = 0; i < core->quota_count; i++) {
        digest = add_row(digest, TABLE_QUOTA, &core->quotas[i]->row);
    }
    for (size_t i = 0; i < core->reservation_count; i++) {
        digest = add_row(digest, TABLE_RESERVATION, &core->reservations[i]->row);
    }
    for (const struct job *job = core->job_first; job != NULL; job = job->next) {
        digest = add_row(digest, TABLE_JOB, &job->row);
        if (job->attempt != NULL) {
            digest = add_attempt(digest, job->attempt);
        }
    }
    for (const struct ckpt *ckpt = core->ckpt_first; ckpt != NULL; ckpt = ckpt->next) {
        digest = add_ckpt(digest, ckpt);
    }
    return digest;
}
