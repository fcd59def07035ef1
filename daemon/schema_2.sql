-- From schema version 1 to 2: queues, accounts, quotas, fair share, reservations, topology. Runs in one transaction.
ALTER TABLE node ADD COLUMN zone TEXT;
ALTER TABLE node ADD COLUMN rack TEXT;
ALTER TABLE node ADD COLUMN leaf TEXT;
ALTER TABLE node ADD COLUMN spare_job INTEGER;

ALTER TABLE job ADD COLUMN nodes_min INTEGER NOT NULL DEFAULT 1;
ALTER TABLE job ADD COLUMN nodes_max INTEGER NOT NULL DEFAULT 1;
ALTER TABLE job ADD COLUMN array_id INTEGER;
ALTER TABLE job ADD COLUMN array_index INTEGER;
ALTER TABLE job ADD COLUMN array_size INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN array_limit INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN dependencies TEXT;
ALTER TABLE job ADD COLUMN deadline_ms INTEGER;
ALTER TABLE job ADD COLUMN preemptible INTEGER NOT NULL DEFAULT 1 CHECK (preemptible IN (0,1));
ALTER TABLE job ADD COLUMN min_runtime_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN spares INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN placement TEXT NOT NULL DEFAULT 'any' CHECK (placement IN ('any','zone','rack','leaf'));
ALTER TABLE job ADD COLUMN expert_ranks INTEGER NOT NULL DEFAULT 1;
ALTER TABLE job ADD COLUMN eligible_ms INTEGER;
ALTER TABLE job ADD COLUMN preempted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN preempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN save_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN restart_first INTEGER NOT NULL DEFAULT 0 CHECK (restart_first IN (0,1));

ALTER TABLE attempt ADD COLUMN nodes INTEGER NOT NULL DEFAULT 1;
ALTER TABLE attempt ADD COLUMN stop_ms INTEGER;
ALTER TABLE attempt ADD COLUMN stop_acked_ms INTEGER;
ALTER TABLE attempt ADD COLUMN saved_ms INTEGER;
ALTER TABLE attempt ADD COLUMN stop_grace_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempt ADD COLUMN crossings INTEGER NOT NULL DEFAULT 0;

UPDATE job SET nodes_min = nodes_requested, nodes_max = nodes_requested, eligible_ms = submitted_ms;
UPDATE attempt SET nodes = max(1, (SELECT count(*) FROM attempt_node n WHERE n.job_id = attempt.job_id AND n.epoch = attempt.epoch));

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
