-- The coordinator's truth, schema version 4. An older database is brought up by schema_N.sql. Times are Unix ms, money micro-dollars, all integers.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT;                                    -- term, clock_ms, cluster, next_event, recovering flags

CREATE TABLE price (
    id                       INTEGER PRIMARY KEY,
    model                    TEXT NOT NULL,   -- accelerator model, '*' for any other
    effective_ms             INTEGER NOT NULL,
    micro_usd_per_gpu_hour   INTEGER NOT NULL CHECK (micro_usd_per_gpu_hour >= 0),
    UNIQUE (model, effective_ms)
) STRICT;

CREATE TABLE node (
    id           INTEGER PRIMARY KEY,
    name         TEXT NOT NULL UNIQUE,
    state        TEXT NOT NULL CHECK (state IN ('UP','DRAINING','DRAINED','DOWN','FENCING','MAINT')),
    reason       TEXT,
    by_user      TEXT,
    since_ms     INTEGER NOT NULL,
    addr         TEXT,
    version      TEXT,
    boot_id      TEXT,
    first_seen_ms INTEGER NOT NULL,
    last_seen_ms INTEGER NOT NULL,            -- written when the state changes, not at every heartbeat
    zone         TEXT,                        -- where it stands, from the configuration
    rack         TEXT,
    leaf         TEXT,                        -- switch that it hangs on
    spare_job    INTEGER                      -- held as a spare for this job
) STRICT;

-- One row an accelerator ever seen. The last columns are its open ledger interval: the meter.
CREATE TABLE gpu (
    id           INTEGER PRIMARY KEY,
    node_id      INTEGER NOT NULL REFERENCES node(id),
    idx          INTEGER NOT NULL CHECK (idx >= 0),
    uuid         TEXT NOT NULL,
    model        TEXT NOT NULL,
    memory_bytes INTEGER NOT NULL DEFAULT 0,
    health       TEXT NOT NULL DEFAULT 'ok',
    present      INTEGER NOT NULL CHECK (present IN (0,1)),
    first_seen_ms INTEGER NOT NULL,
    category     TEXT NOT NULL CHECK (category IN ('idle','down','planned_down','init','productive','data_wait',
                     'checkpoint_stall','lost_progress','recovery','held')),
    job_id       INTEGER REFERENCES job(id),
    epoch        INTEGER,
    since_ms     INTEGER NOT NULL,
    price_id     INTEGER NOT NULL REFERENCES price(id),
    UNIQUE (node_id, idx),
    CHECK ((job_id IS NULL) = (category IN ('idle','down','planned_down')))
) STRICT;

CREATE TABLE job (
    id              INTEGER PRIMARY KEY,
    submit_key      TEXT UNIQUE,
    request_hash    TEXT NOT NULL,
    name            TEXT NOT NULL,
    user            TEXT NOT NULL,
    account         TEXT NOT NULL,
    queue           TEXT NOT NULL,
    stage           TEXT NOT NULL,
    priority        INTEGER NOT NULL,
    nodes_requested INTEGER NOT NULL CHECK (nodes_requested > 0),
    gpus_per_node   INTEGER NOT NULL CHECK (gpus_per_node >= 0),
    has_train       INTEGER NOT NULL CHECK (has_train IN (0,1)), -- the trainer; else a command
    restart_max     INTEGER NOT NULL,          -- these five repeat the spec, so that the coordinator need not parse it again
    time_limit_ms   INTEGER NOT NULL,          -- 0: none
    ckpt_keep       INTEGER NOT NULL,
    ckpt_dir        TEXT,                      -- root of its checkpoints; NULL: the coordinator's
    spec            TEXT NOT NULL,             -- canonical JSON
    model_json      TEXT,
    workdir         TEXT NOT NULL,
    state           TEXT NOT NULL CHECK (state IN ('PENDING','STARTING','RUNNING','SUSPENDED','STOPPING','COMPLETED',
                        'FAILED','CANCELLED','HELD')),
    reason_code     TEXT,
    reason_text     TEXT,
    submitted_ms    INTEGER NOT NULL,
    started_ms      INTEGER,
    ended_ms        INTEGER,
    ran_ms          INTEGER NOT NULL DEFAULT 0, -- how long its ended attempts ran, together: what time_limit_ms counts
    not_before_ms   INTEGER NOT NULL DEFAULT 0,
    epoch           INTEGER NOT NULL DEFAULT 0, -- of the newest attempt; grows by one each
    restarts        INTEGER NOT NULL DEFAULT 0,
    fruitless       INTEGER NOT NULL DEFAULT 0, -- restarts since the newest checkpoint
    stop_cause      TEXT,                       -- why it is STOPPING: cancel, hold, failure, time_limit ...
    exit_code       INTEGER,
    exit_signal     INTEGER,
    exit_class      TEXT,
    step            INTEGER NOT NULL DEFAULT 0,
    steps           INTEGER NOT NULL DEFAULT 0,
    tokens          INTEGER NOT NULL DEFAULT 0,
    loss            REAL,
    mtp_loss        REAL,
    grad_norm       REAL,
    tokens_per_s    REAL,
    valid_loss      REAL,
    step_at_ms      INTEGER NOT NULL DEFAULT 0, -- when `step` was reported
    ckpt_id         INTEGER,                    -- newest committed checkpoint
    nodes_min       INTEGER NOT NULL DEFAULT 1, -- of an elastic job; nodes_requested: the size it has, or waits for
    nodes_max       INTEGER NOT NULL DEFAULT 1,
    array_id        INTEGER,                    -- first job of its array
    array_index     INTEGER,
    array_size      INTEGER NOT NULL DEFAULT 0, -- jobs in the array; 0: none
    array_limit     INTEGER NOT NULL DEFAULT 0, -- of them at a time; 0: all
    dependencies    TEXT,                       -- such as "after:12 afterok:13 singleton"; NULL once they are met
    deadline_ms     INTEGER,                    -- to be over by then
    preemptible     INTEGER NOT NULL DEFAULT 1 CHECK (preemptible IN (0,1)),
    min_runtime_ms  INTEGER NOT NULL DEFAULT 0, -- of an attempt, before it may be preempted
    spares          INTEGER NOT NULL DEFAULT 0, -- nodes wanted beside the gang
    placement       TEXT NOT NULL DEFAULT 'any' CHECK (placement IN ('any','zone','rack','leaf')),
    expert_ranks    INTEGER NOT NULL DEFAULT 1, -- that talk most: kept within a leaf
    eligible_ms     INTEGER,                    -- since when it might start: its age counts from here
    preempted       INTEGER NOT NULL DEFAULT 0, -- times it was made to stop for others
    preempts        INTEGER NOT NULL DEFAULT 0, -- times others were made to stop for it, since its newest checkpoint
    save_ms         INTEGER NOT NULL DEFAULT 0, -- what a checkpoint takes, learnt; 0: unknown
    restart_first   INTEGER NOT NULL DEFAULT 0 CHECK (restart_first IN (0,1)), -- it lost a node, and goes before others
    promised_ms     INTEGER,                    -- the start that it was promised when it was the first blocked job
    guard_rollback  INTEGER NOT NULL DEFAULT 0, -- steps that its guard goes back at least, so an older checkpoint is kept; 0: none
    guard_epoch     INTEGER,                    -- the newest attempt whose guard has decided something
    guard_taken     INTEGER                     -- the same, of decisions to pass over batches that an attempt has taken over
) STRICT;
CREATE INDEX job_live ON job(state) WHERE state NOT IN ('COMPLETED','FAILED','CANCELLED');
CREATE INDEX job_ended ON job(state, array_id, array_size) WHERE state IN ('COMPLETED','FAILED','CANCELLED');

CREATE TABLE attempt (
    job_id      INTEGER NOT NULL REFERENCES job(id),
    epoch       INTEGER NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('STARTING','RUNNING','STOPPING','ENDED')),
    term        INTEGER NOT NULL,               -- of the coordinator that ordered it: part of its checkpoint folder's name
    started_ms  INTEGER NOT NULL,
    first_step_ms INTEGER,
    failing_ms  INTEGER,                        -- first sign of the end
    ended_ms    INTEGER,
    cause       TEXT,
    first_step  INTEGER,
    last_step   INTEGER,
    lost_steps  INTEGER,
    detect_ms   INTEGER,
    restart_ms  INTEGER,                        -- from the end of the previous attempt's progress to this one's first step
    resume_ckpt_id INTEGER,
    resume_step INTEGER,
    master_port INTEGER NOT NULL,
    stall_kept_ms INTEGER NOT NULL DEFAULT 0,   -- reported waits within the open productive interval: those that the newest
    wait_kept_ms  INTEGER NOT NULL DEFAULT 0,   -- checkpoint protects, and
    stall_open_ms INTEGER NOT NULL DEFAULT 0,   -- those since
    wait_open_ms  INTEGER NOT NULL DEFAULT 0,
    nodes         INTEGER NOT NULL DEFAULT 1,   -- its size
    stop_ms       INTEGER,                      -- asked to stop,
    stop_acked_ms INTEGER,                      -- which all workers have acknowledged,
    saved_ms      INTEGER,                      -- after which it has saved;
    stop_grace_ms INTEGER NOT NULL DEFAULT 0,   -- how long it gets for that
    crossings     INTEGER NOT NULL DEFAULT 0,   -- neighbouring nodes of the gang on different leaf switches
    guard         TEXT,                         -- what the trainer's guard decided: replay, rollback, lower, hold, corrupt;
    guard_text    TEXT,                         -- why, and
    guard_back_to INTEGER,                      -- the step that it goes back to
    PRIMARY KEY (job_id, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE attempt_node (
    job_id     INTEGER NOT NULL,
    epoch      INTEGER NOT NULL,
    node_rank  INTEGER NOT NULL,
    node_id    INTEGER NOT NULL REFERENCES node(id),
    phase      TEXT NOT NULL CHECK (phase IN ('ORDERED','ACCEPTED','STARTED','ENDED','LOST')),
    error      TEXT,
    PRIMARY KEY (job_id, epoch, node_rank),
    FOREIGN KEY (job_id, epoch) REFERENCES attempt(job_id, epoch)
) STRICT, WITHOUT ROWID;
CREATE INDEX attempt_node_by_node ON attempt_node(node_id, job_id, epoch);

CREATE TABLE allocation (
    job_id      INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,
    gpu_id      INTEGER NOT NULL REFERENCES gpu(id),
    node_rank   INTEGER NOT NULL,
    local_rank  INTEGER NOT NULL,
    released_ms INTEGER,
    PRIMARY KEY (job_id, epoch, gpu_id),
    FOREIGN KEY (job_id, epoch) REFERENCES attempt(job_id, epoch)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX allocation_one_live ON allocation(gpu_id) WHERE released_ms IS NULL;

CREATE TABLE rank_exit (
    job_id INTEGER NOT NULL,
    epoch  INTEGER NOT NULL,
    rank   INTEGER NOT NULL,
    code   INTEGER NOT NULL,
    signal INTEGER NOT NULL,
    at_ms  INTEGER NOT NULL,
    last_words TEXT,
    PRIMARY KEY (job_id, epoch, rank),
    FOREIGN KEY (job_id, epoch) REFERENCES attempt(job_id, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoint (
    id           INTEGER PRIMARY KEY,
    job_id       INTEGER NOT NULL REFERENCES job(id),
    epoch        INTEGER NOT NULL,
    step         INTEGER NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('WRITING','COMMITTED','CORRUPT','DELETED')),
    published    INTEGER NOT NULL CHECK (published IN (0,1)), -- the manifest is in place
    removing     INTEGER NOT NULL DEFAULT 0 CHECK (removing IN (0,1)), -- DELETED, files not yet reported gone
    world_size   INTEGER NOT NULL,
    bytes        INTEGER NOT NULL,
    sha256       TEXT,
    layout       TEXT NOT NULL,
    path         TEXT NOT NULL,
    pinned       INTEGER NOT NULL DEFAULT 0 CHECK (pinned IN (0,1)),
    reason       TEXT,
    created_ms   INTEGER NOT NULL,
    step_at_ms   INTEGER NOT NULL,              -- when training stood at this step: the end of what it protects
    committed_ms INTEGER,
    given_up     INTEGER NOT NULL DEFAULT 0 CHECK (given_up IN (0,1)), -- the guard went back behind it: never resumed from
    UNIQUE (job_id, epoch, step)
) STRICT;

CREATE TABLE ckpt_shard (
    ckpt_id INTEGER NOT NULL REFERENCES checkpoint(id),
    rank    INTEGER NOT NULL,
    file    TEXT NOT NULL,
    bytes   INTEGER NOT NULL,
    xxh3    TEXT NOT NULL,
    sha256  TEXT NOT NULL,
    PRIMARY KEY (ckpt_id, rank)
) STRICT, WITHOUT ROWID;

-- Closed intervals only, append-only and hash-chained: hash = SHA-256(0x01 || previous hash || SHA-256(0x00 || canonical row)).
CREATE TABLE ledger (
    seq            INTEGER PRIMARY KEY,
    gpu_id         INTEGER NOT NULL REFERENCES gpu(id),
    category       TEXT NOT NULL,
    job_id         INTEGER,
    epoch          INTEGER,
    start_ms       INTEGER NOT NULL,
    end_ms         INTEGER NOT NULL CHECK (end_ms > start_ms),
    price_id       INTEGER NOT NULL REFERENCES price(id),
    cost_micro_usd INTEGER NOT NULL CHECK (cost_micro_usd >= 0),
    hash           BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE INDEX ledger_by_job ON ledger(job_id) WHERE job_id IS NOT NULL;
CREATE TRIGGER ledger_no_update BEFORE UPDATE ON ledger BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER ledger_no_delete BEFORE DELETE ON ledger BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER ledger_in_order BEFORE INSERT ON ledger
    WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM ledger)
    BEGIN SELECT RAISE(ABORT, 'the ledger has no gaps'); END;

-- Work that was given up later, by a guard that went back: what the ledger has booked as productive for the job within
-- [from_ms, to_ms) is lost progress. The ledger itself is not touched.
CREATE TABLE lost_work (
    job_id  INTEGER NOT NULL REFERENCES job(id),
    epoch   INTEGER NOT NULL,                   -- of the attempt that decided it
    from_ms INTEGER NOT NULL,
    to_ms   INTEGER NOT NULL CHECK (to_ms >= from_ms),
    PRIMARY KEY (job_id, epoch)
) STRICT;
CREATE TRIGGER lost_work_no_update BEFORE UPDATE ON lost_work BEGIN SELECT RAISE(ABORT, 'lost work is append-only'); END;
CREATE TRIGGER lost_work_no_delete BEFORE DELETE ON lost_work BEGIN SELECT RAISE(ABORT, 'lost work is append-only'); END;

CREATE TABLE metric (
    job_id   INTEGER NOT NULL,
    step     INTEGER NOT NULL,
    epoch    INTEGER NOT NULL,
    tokens   INTEGER NOT NULL,
    loss     REAL NOT NULL,
    mtp_loss REAL,
    grad_norm REAL,
    lr       REAL,
    tokens_per_s REAL,
    balance_maxvio REAL,
    valid_loss REAL,
    step_ms  INTEGER,
    valid_maxvio REAL,
    layer_maxvio TEXT,                         -- MaxVio of each layer with experts, such as 4:0.31,5:0.28
    PRIMARY KEY (job_id, step)
) STRICT, WITHOUT ROWID;                       -- a step done again after a recovery replaces the lost one

CREATE TABLE event (
    seq    INTEGER PRIMARY KEY,
    at_ms  INTEGER NOT NULL,
    kind   TEXT NOT NULL,
    job_id INTEGER,
    epoch  INTEGER,
    node_id INTEGER,
    text   TEXT NOT NULL
) STRICT;
CREATE INDEX event_by_job ON event(job_id) WHERE job_id IS NOT NULL;

CREATE TABLE queue (
    name           TEXT PRIMARY KEY,
    priority       INTEGER NOT NULL,            -- added to that of its jobs
    weight_milli   INTEGER NOT NULL CHECK (weight_milli >= 0), -- what an hour in it counts in the fair share, in 1/1000
    nodes_max      INTEGER,                     -- NULL, here and below: no limit. Nodes of all its running jobs
    jobs_max       INTEGER,                     -- jobs running
    user_nodes_max INTEGER,                     -- the same of one user
    user_jobs_max  INTEGER,
    waiting_max    INTEGER,                     -- jobs waiting; more are refused
    priority_max   INTEGER,                     -- a job may ask for
    time_limit_ms  INTEGER,                     -- the longest time_limit; it is also that of a job without one
    preempts       INTEGER NOT NULL CHECK (preempts IN (0,1)),    -- its jobs may make others stop
    preemptible    INTEGER NOT NULL CHECK (preemptible IN (0,1)), -- its jobs may be made to stop, unless they say otherwise
    accepts        INTEGER NOT NULL CHECK (accepts IN (0,1)),     -- takes new jobs
    starts         INTEGER NOT NULL CHECK (starts IN (0,1)),      -- starts jobs
    by_user        TEXT,                        -- who changed it last; NULL: as the configuration has it
    changed_ms     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE account (
    name       TEXT PRIMARY KEY,
    shares     INTEGER NOT NULL CHECK (shares >= 0),
    nodes_max  INTEGER,                         -- of its running jobs; NULL: no limit
    accepts    INTEGER NOT NULL CHECK (accepts IN (0,1)),
    by_user    TEXT,
    changed_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How many nodes whoever it fits may have at a time. NULL: any. An expired one is kept: who allowed what, when.
CREATE TABLE quota (
    id         INTEGER PRIMARY KEY,
    user       TEXT,
    account    TEXT,
    class      TEXT,                            -- of priority, from the configuration
    nodes      INTEGER NOT NULL CHECK (nodes >= 0),
    expires_ms INTEGER,
    reason     TEXT,
    by_user    TEXT NOT NULL,
    set_ms     INTEGER NOT NULL
) STRICT;

-- What was used, fading by half every half-life: gpu_ms as it stood at at_ms.
CREATE TABLE fair_usage (
    account TEXT NOT NULL,
    user    TEXT NOT NULL,
    gpu_ms  REAL NOT NULL CHECK (gpu_ms >= 0),
    at_ms   INTEGER NOT NULL,
    PRIMARY KEY (account, user)
) STRICT, WITHOUT ROWID;

-- Nodes set aside for a time: for maintenance, or for the jobs of a user or account.
CREATE TABLE reservation (
    id         INTEGER PRIMARY KEY,
    kind       TEXT NOT NULL CHECK (kind IN ('maint','reserve')),
    state      TEXT NOT NULL CHECK (state IN ('PLANNED','ACTIVE','OVER','CANCELLED')),
    nodes      TEXT NOT NULL,                   -- such as gpu[001-032]
    start_ms   INTEGER NOT NULL,
    end_ms     INTEGER NOT NULL CHECK (end_ms > start_ms),
    user       TEXT,
    account    TEXT,
    reason     TEXT NOT NULL,
    by_user    TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    ended_ms   INTEGER
) STRICT;
