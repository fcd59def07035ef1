/* The rows of schema.sql as C structs, declared once: each list below makes the struct, and rows.c
 * makes from the same list the table description that the store binds and reads, and that the
 * digest walks. A column is added here and in schema.sql, nowhere else. Key columns come first.
 * Texts are owned by the row. */
#ifndef DAEMON_CORE_ROWS_H
#define DAEMON_CORE_ROWS_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/jobspec.h"

/* An absent OPT value: NULL in the table. */
#define ROW_NONE INT64_MIN
/* The gpu, job, ... that is not there: ids begin with 1. */
#define ROW_HASH_BYTES 32

enum node_state { NODE_UP, NODE_DRAINING, NODE_DRAINED, NODE_DOWN, NODE_FENCING, NODE_MAINT };
enum job_state {
    JOB_PENDING,
    JOB_STARTING,
    JOB_RUNNING,
    JOB_SUSPENDED,
    JOB_STOPPING,
    JOB_COMPLETED,
    JOB_FAILED,
    JOB_CANCELLED,
    JOB_HELD,
};
enum attempt_state { ATTEMPT_STARTING, ATTEMPT_RUNNING, ATTEMPT_STOPPING, ATTEMPT_ENDED };
/* What one node has done with one attempt; only ever grows. */
enum phase { PHASE_ORDERED, PHASE_ACCEPTED, PHASE_STARTED, PHASE_ENDED, PHASE_LOST };
enum ckpt_state { CKPT_WRITING, CKPT_COMMITTED, CKPT_CORRUPT, CKPT_DELETED };
enum category {
    CATEGORY_IDLE,
    CATEGORY_DOWN,
    CATEGORY_PLANNED_DOWN,
    CATEGORY_INIT,
    CATEGORY_PRODUCTIVE,
    CATEGORY_DATA_WAIT,
    CATEGORY_CHECKPOINT_STALL,
    CATEGORY_LOST_PROGRESS,
    CATEGORY_RECOVERY,
    CATEGORY_HELD,
    CATEGORY_COUNT,
};

enum reservation_kind { RESERVATION_MAINT, RESERVATION_RESERVE };
enum reservation_state {
    RESERVATION_PLANNED,
    RESERVATION_ACTIVE,
    RESERVATION_OVER,
    RESERVATION_CANCELLED,
};

extern const char *const reservation_kind_names[];
extern const char *const reservation_state_names[];
extern const char *const node_state_names[];
extern const char *const job_state_names[];
extern const char *const attempt_state_names[];
extern const char *const phase_names[];
extern const char *const ckpt_state_names[];
extern const char *const category_names[];

/* ID: integer; REF: integer, 0 is NULL; INT: signed; OPT: signed, ROW_NONE is NULL; FLAG: 0 or 1;
 * REAL: NaN is NULL; TEXT: NULL is NULL; HASH: 32 bytes; the others are enums, stored by name. */
#define ROW_DECLARE_ID(name)                uint64_t name;
#define ROW_DECLARE_REF(name)               uint64_t name;
#define ROW_DECLARE_INT(name)               int64_t name;
#define ROW_DECLARE_OPT(name)               int64_t name;
#define ROW_DECLARE_FLAG(name)              bool name;
#define ROW_DECLARE_REAL(name)              double name;
#define ROW_DECLARE_TEXT(name)              char *name;
#define ROW_DECLARE_HASH(name)              uint8_t name[ROW_HASH_BYTES];
#define ROW_DECLARE_NODE_STATE(name)        enum node_state name;
#define ROW_DECLARE_JOB_STATE(name)         enum job_state name;
#define ROW_DECLARE_ATTEMPT_STATE(name)     enum attempt_state name;
#define ROW_DECLARE_PHASE(name)             enum phase name;
#define ROW_DECLARE_CKPT_STATE(name)        enum ckpt_state name;
#define ROW_DECLARE_CATEGORY(name)          enum category name;
#define ROW_DECLARE_PLACEMENT(name)         enum placement name;
#define ROW_DECLARE_RESERVATION_KIND(name)  enum reservation_kind name;
#define ROW_DECLARE_RESERVATION_STATE(name) enum reservation_state name;
#define ROW_DECLARE(kind, name)             ROW_DECLARE_##kind(name)

/* clang-format off */
#define PRICE_COLUMNS(X) \
    X(ID, id) X(TEXT, model) X(INT, effective_ms) X(INT, micro_usd_per_gpu_hour)
#define NODE_COLUMNS(X) \
    X(ID, id) X(TEXT, name) X(NODE_STATE, state) X(TEXT, reason) X(TEXT, by_user) X(INT, since_ms) X(TEXT, addr) \
    X(TEXT, version) X(TEXT, boot_id) X(INT, first_seen_ms) X(INT, last_seen_ms) X(TEXT, zone) X(TEXT, rack) \
    X(TEXT, leaf) X(REF, spare_job)
#define GPU_COLUMNS(X) \
    X(ID, id) X(ID, node_id) X(INT, idx) X(TEXT, uuid) X(TEXT, model) X(INT, memory_bytes) X(TEXT, health) \
    X(FLAG, present) X(INT, first_seen_ms) X(CATEGORY, category) X(REF, job_id) X(REF, epoch) X(INT, since_ms) \
    X(ID, price_id)
#define JOB_COLUMNS(X) \
    X(ID, id) X(TEXT, submit_key) X(TEXT, request_hash) X(TEXT, name) X(TEXT, user) X(TEXT, account) X(TEXT, queue) \
    X(TEXT, stage) X(INT, priority) X(INT, nodes_requested) X(INT, gpus_per_node) X(FLAG, has_train) \
    X(INT, restart_max) X(INT, time_limit_ms) X(INT, ckpt_keep) X(TEXT, ckpt_dir) X(TEXT, spec) X(TEXT, model_json) \
    X(TEXT, workdir) X(JOB_STATE, state) X(TEXT, reason_code) X(TEXT, reason_text) X(INT, submitted_ms) \
    X(OPT, started_ms) X(OPT, ended_ms) X(INT, ran_ms) X(INT, not_before_ms) X(INT, epoch) X(INT, restarts) \
    X(INT, fruitless) X(TEXT, stop_cause) X(OPT, exit_code) X(OPT, exit_signal) X(TEXT, exit_class) X(INT, step) \
    X(INT, steps) X(INT, tokens) X(REAL, loss) X(REAL, mtp_loss) X(REAL, grad_norm) X(REAL, tokens_per_s) \
    X(REAL, valid_loss) X(INT, step_at_ms) X(REF, ckpt_id) X(INT, nodes_min) X(INT, nodes_max) X(REF, array_id) \
    X(OPT, array_index) X(INT, array_size) X(INT, array_limit) X(TEXT, dependencies) X(OPT, deadline_ms) \
    X(FLAG, preemptible) X(INT, min_runtime_ms) X(INT, spares) X(PLACEMENT, placement) X(INT, expert_ranks) \
    X(OPT, eligible_ms) X(INT, preempted) X(INT, preempts) X(INT, save_ms) X(FLAG, restart_first) \
    X(OPT, promised_ms) X(INT, guard_rollback) X(REF, guard_epoch) X(REF, guard_taken)
#define ATTEMPT_COLUMNS(X) \
    X(ID, job_id) X(ID, epoch) X(ATTEMPT_STATE, state) X(INT, term) X(INT, started_ms) X(OPT, first_step_ms) \
    X(OPT, failing_ms) X(OPT, ended_ms) X(TEXT, cause) X(OPT, first_step) X(OPT, last_step) X(OPT, lost_steps) \
    X(OPT, detect_ms) X(OPT, restart_ms) X(REF, resume_ckpt_id) X(OPT, resume_step) X(INT, master_port) \
    X(INT, stall_kept_ms) X(INT, wait_kept_ms) X(INT, stall_open_ms) X(INT, wait_open_ms) X(INT, nodes) \
    X(OPT, stop_ms) X(OPT, stop_acked_ms) X(OPT, saved_ms) X(INT, stop_grace_ms) X(INT, crossings) \
    X(TEXT, guard) X(TEXT, guard_text) X(OPT, guard_back_to)
#define ATTEMPT_NODE_COLUMNS(X) \
    X(ID, job_id) X(ID, epoch) X(INT, node_rank) X(ID, node_id) X(PHASE, phase) X(TEXT, error)
#define ALLOCATION_COLUMNS(X) \
    X(ID, job_id) X(ID, epoch) X(ID, gpu_id) X(INT, node_rank) X(INT, local_rank) X(OPT, released_ms)
#define RANK_EXIT_COLUMNS(X) \
    X(ID, job_id) X(ID, epoch) X(INT, rank) X(INT, code) X(INT, signal) X(INT, at_ms) X(TEXT, last_words)
#define CHECKPOINT_COLUMNS(X) \
    X(ID, id) X(ID, job_id) X(ID, epoch) X(INT, step) X(CKPT_STATE, state) X(FLAG, published) X(FLAG, removing) \
    X(INT, world_size) X(INT, bytes) X(TEXT, sha256) X(TEXT, layout) X(TEXT, path) X(FLAG, pinned) X(TEXT, reason) \
    X(INT, created_ms) X(INT, step_at_ms) X(OPT, committed_ms) X(FLAG, given_up)
#define CKPT_SHARD_COLUMNS(X) \
    X(ID, ckpt_id) X(INT, rank) X(TEXT, file) X(INT, bytes) X(TEXT, xxh3) X(TEXT, sha256)
#define LEDGER_COLUMNS(X) \
    X(ID, seq) X(ID, gpu_id) X(CATEGORY, category) X(REF, job_id) X(REF, epoch) X(INT, start_ms) X(INT, end_ms) \
    X(ID, price_id) X(INT, cost_micro_usd) X(HASH, hash)
#define LOST_WORK_COLUMNS(X) \
    X(ID, job_id) X(ID, epoch) X(INT, from_ms) X(INT, to_ms)
#define METRIC_COLUMNS(X) \
    X(ID, job_id) X(INT, step) X(ID, epoch) X(INT, tokens) X(REAL, loss) X(REAL, mtp_loss) X(REAL, grad_norm) \
    X(REAL, lr) X(REAL, tokens_per_s) X(REAL, balance_maxvio) X(REAL, valid_loss) X(OPT, step_ms) \
    X(REAL, valid_maxvio) X(TEXT, layer_maxvio)
#define EVENT_COLUMNS(X) \
    X(ID, seq) X(INT, at_ms) X(TEXT, kind) X(REF, job_id) X(REF, epoch) X(REF, node_id) X(TEXT, text)
#define QUEUE_COLUMNS(X) \
    X(TEXT, name) X(INT, priority) X(INT, weight_milli) X(OPT, nodes_max) X(OPT, jobs_max) X(OPT, user_nodes_max) \
    X(OPT, user_jobs_max) X(OPT, waiting_max) X(OPT, priority_max) X(OPT, time_limit_ms) X(FLAG, preempts) \
    X(FLAG, preemptible) X(FLAG, accepts) X(FLAG, starts) X(TEXT, by_user) X(INT, changed_ms)
#define ACCOUNT_COLUMNS(X) \
    X(TEXT, name) X(INT, shares) X(OPT, nodes_max) X(FLAG, accepts) X(TEXT, by_user) X(INT, changed_ms)
#define QUOTA_COLUMNS(X) \
    X(ID, id) X(TEXT, user) X(TEXT, account) X(TEXT, class) X(INT, nodes) X(OPT, expires_ms) X(TEXT, reason) \
    X(TEXT, by_user) X(INT, set_ms)
#define FAIR_USAGE_COLUMNS(X) \
    X(TEXT, account) X(TEXT, user) X(REAL, gpu_ms) X(INT, at_ms)
#define RESERVATION_COLUMNS(X) \
    X(ID, id) X(RESERVATION_KIND, kind) X(RESERVATION_STATE, state) X(TEXT, nodes) X(INT, start_ms) X(INT, end_ms) \
    X(TEXT, user) X(TEXT, account) X(TEXT, reason) X(TEXT, by_user) X(INT, created_ms) X(OPT, ended_ms)

/* In the order in which foreign keys allow a batch to be written: T(NAME, table and struct, key columns, use). */
#define ROW_TABLES(T) \
    T(PRICE, price, 1, ROW_KEPT) \
    T(NODE, node, 1, ROW_KEPT) \
    T(JOB, job, 1, ROW_KEPT) \
    T(GPU, gpu, 1, ROW_KEPT) \
    T(ATTEMPT, attempt, 2, ROW_KEPT) \
    T(ATTEMPT_NODE, attempt_node, 3, ROW_KEPT) \
    T(ALLOCATION, allocation, 3, ROW_KEPT) \
    T(RANK_EXIT, rank_exit, 3, ROW_KEPT) \
    T(CHECKPOINT, checkpoint, 1, ROW_KEPT) \
    T(CKPT_SHARD, ckpt_shard, 2, ROW_KEPT) \
    T(LEDGER, ledger, 1, ROW_APPENDED) \
    T(LOST_WORK, lost_work, 2, ROW_APPENDED) \
    T(METRIC, metric, 2, ROW_PASSED) \
    T(EVENT, event, 1, ROW_APPENDED) \
    T(QUEUE, queue, 1, ROW_KEPT) \
    T(ACCOUNT, account, 1, ROW_KEPT) \
    T(QUOTA, quota, 1, ROW_KEPT) \
    T(FAIR_USAGE, fair_usage, 2, ROW_KEPT) \
    T(RESERVATION, reservation, 1, ROW_KEPT)
/* clang-format on */

#define ROW_TABLE_ID(NAME, name, keys, use) TABLE_##NAME,
enum table_id { ROW_TABLES(ROW_TABLE_ID) TABLE_COUNT };

/* `dirty` says that the row is in the list of rows to write. */
#define ROW_STRUCT(NAME, name, keys, use)                                                          \
    struct name##_row {                                                                            \
        bool dirty;                                                                                \
        NAME##_COLUMNS(ROW_DECLARE)                                                                \
    };
ROW_TABLES(ROW_STRUCT)

enum column_kind {
    COLUMN_ID,
    COLUMN_REF,
    COLUMN_INT,
    COLUMN_OPT,
    COLUMN_FLAG,
    COLUMN_REAL,
    COLUMN_TEXT,
    COLUMN_HASH,
    COLUMN_ENUM,
};
enum row_use {
    ROW_KEPT,     /* lives in the core; written again whenever it changed */
    ROW_PASSED,   /* handed over, written, freed; replaces the row with the same key */
    ROW_APPENDED, /* the same, but there never is a row with the same key */
};
struct column {
    const char *name;
    enum column_kind kind;
    size_t offset;            /* in the row struct */
    const char *const *names; /* of an enum, NULL-terminated */
};
struct table {
    const char *name;
    const struct column *columns;
    size_t column_count;
    size_t key_count;
    size_t row_bytes;
    enum row_use use;
};
extern const struct table tables[TABLE_COUNT];

/* Frees the row's texts, not the row. */
void row_fini(const struct table *table, void *row);
/* Replaces an owned text by a copy; NULL is fine on both sides. */
void row_set_text(char **field, const char *text);
/* Index of text in a NULL-terminated list of names, -1 when it is not there. */
int row_enum_parse(const char *const *names, const char *text);

#endif
