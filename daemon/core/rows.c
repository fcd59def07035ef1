#include "daemon/core/rows.h"

#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

const char *const node_state_names[] = {"UP",      "DRAINING", "DRAINED", "DOWN",
                                        "FENCING", "MAINT",    NULL};
const char *const job_state_names[] = {"PENDING",  "STARTING",  "RUNNING", "SUSPENDED",
                                       "STOPPING", "COMPLETED", "FAILED",  "CANCELLED",
                                       "HELD",     NULL};
const char *const attempt_state_names[] = {"STARTING", "RUNNING", "STOPPING", "ENDED", NULL};
const char *const phase_names[] = {"ORDERED", "ACCEPTED", "STARTED", "ENDED", "LOST", NULL};
const char *const ckpt_state_names[] = {"WRITING", "COMMITTED", "CORRUPT", "DELETED", NULL};
const char *const category_names[] = {"idle",
                                      "down",
                                      "planned_down",
                                      "init",
                                      "productive",
                                      "data_wait",
                                      "checkpoint_stall",
                                      "lost_progress",
                                      "recovery",
                                      "held",
                                      NULL};

const char *const reservation_kind_names[] = {"maint", "reserve", NULL};
const char *const reservation_state_names[] = {"PLANNED", "ACTIVE", "OVER", "CANCELLED", NULL};

#define KIND_ID                COLUMN_ID, NULL
#define KIND_REF               COLUMN_REF, NULL
#define KIND_INT               COLUMN_INT, NULL
#define KIND_OPT               COLUMN_OPT, NULL
#define KIND_FLAG              COLUMN_FLAG, NULL
#define KIND_REAL              COLUMN_REAL, NULL
#define KIND_TEXT              COLUMN_TEXT, NULL
#define KIND_HASH              COLUMN_HASH, NULL
#define KIND_NODE_STATE        COLUMN_ENUM, node_state_names
#define KIND_JOB_STATE         COLUMN_ENUM, job_state_names
#define KIND_ATTEMPT_STATE     COLUMN_ENUM, attempt_state_names
#define KIND_PHASE             COLUMN_ENUM, phase_names
#define KIND_CKPT_STATE        COLUMN_ENUM, ckpt_state_names
#define KIND_CATEGORY          COLUMN_ENUM, category_names
#define KIND_PLACEMENT         COLUMN_ENUM, placement_names
#define KIND_RESERVATION_KIND  COLUMN_ENUM, reservation_kind_names
#define KIND_RESERVATION_STATE COLUMN_ENUM, reservation_state_names

#define COLUMN_OF(row, column, kind_, names_)                                                      \
    {.name = #column, .kind = kind_, .offset = offsetof(row, column), .names = names_},
#define COLUMN_EXPAND(...) COLUMN_OF(__VA_ARGS__)

/* One array a table. ROW is redefined for each, because an X-macro cannot pass it on. */
#define COLUMN(kind, column) COLUMN_EXPAND(ROW, column, KIND_##kind)
#define ROW                  struct price_row
static const struct column price_columns[] = {PRICE_COLUMNS(COLUMN)};
#undef ROW
#define ROW struct node_row
static const struct column node_columns[] = {NODE_COLUMNS(COLUMN)};
#undef ROW
#define ROW struct job_row
static const struct column job_columns[] = {JOB_COLUMNS(COLUMN)};
#undef ROW
#define ROW struct gpu_row
static const struct column gpu_columns[] = {GPU_COLUMNS(COLUMN)};
#undef ROW
#define ROW struct attempt_row
static const struct column attempt_columns[] = {ATTEMPT_COLUMNS(COLUMN)};
#undef ROW
#define ROW struct attempt_node_row
static const struct column attempt_node_columns[] = {ATTEMPT_NODE_COLUMNS(COLUMN)};
#undef ROW
#define ROW struct allocation_row
static const struct column allocation_columns[] = {ALLOCATION_COLUMNS(COLUMN)};
#undef ROW
#define ROW struct rank_exit_row
static const struct column rank_exit_columns[] = {RANK_EXIT_COLUMNS(COLUMN)};
#undef ROW
#define ROW struct checkpoint_row
static const struct column checkpoint_columns[] = {CHECKPOINT_COLUMNS(COLUMN)};
#undef ROW
#define ROW struct ckpt_shard_row
static const struct column ckpt_shard_columns[] = {CKPT_SHARD_COLUMNS(COLUMN)};
#undef ROW
#define ROW struct ledger_row
static const struct column ledger_columns[] = {LEDGER_COLUMNS(COLUMN)};
#undef ROW
#define ROW struct lost_work_row
static const struct column lost_work_columns[] = {LOST_WORK_COLUMNS(COLUMN)};
#undef ROW
#define ROW struct metric_row
static const struct column metric_columns[] = {METRIC_COLUMNS(COLUMN)};
#undef ROW
#define ROW struct event_row
static const struct column event_columns[] = {EVENT_COLUMNS(COLUMN)};
#undef ROW
#define ROW struct queue_row
static const struct column queue_columns[] = {QUEUE_COLUMNS(COLUMN)};
#undef ROW
#define ROW struct account_row
static const struct column account_columns[] = {ACCOUNT_COLUMNS(COLUMN)};
#undef ROW
#define ROW struct quota_row
static const struct column quota_columns[] = {QUOTA_COLUMNS(COLUMN)};
#undef ROW
#define ROW struct fair_usage_row
static const struct column fair_usage_columns[] = {FAIR_USAGE_COLUMNS(COLUMN)};
#undef ROW
#define ROW struct reservation_row
static const struct column reservation_columns[] = {RESERVATION_COLUMNS(COLUMN)};
#undef ROW

#define TABLE_OF(NAME, name_, keys, use_)                                                          \
    [TABLE_##NAME] = {.name = #name_,                                                              \
                      .columns = name_##_columns,                                                  \
                      .column_count = sizeof name_##_columns / sizeof name_##_columns[0],          \
                      .key_count = keys,                                                           \
                      .row_bytes = sizeof(struct name_##_row),                                     \
                      .use = use_},
const struct table tables[TABLE_COUNT] = {ROW_TABLES(TABLE_OF)};

void row_fini(const struct table *table, void *row)
{
    for (size_t i = 0; i < table->column_count; i++) {
        if (table->columns[i].kind == COLUMN_TEXT) {
            row_set_text((char **)((char *)row + table->columns[i].offset), NULL);
        }
    }
}

void row_set_text(char **field, const char *text)
{
    char *copy = mem_strdup(text); /* first: text may be part of *field */
    free(*field);
    *field = copy;
}

int row_enum_parse(const char *const *names, const char *text)
{
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(names[i], text) == 0) {
            return i;
        }
    }
    return -1;
}
