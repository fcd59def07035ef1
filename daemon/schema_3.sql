-- From schema version 2 to 3: promised starts, what a trainer's guard decides, and MaxVio in the metrics. Runs in one transaction.
ALTER TABLE job ADD COLUMN promised_ms INTEGER;
ALTER TABLE job ADD COLUMN guard_rollback INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN guard_epoch INTEGER;
ALTER TABLE job ADD COLUMN guard_taken INTEGER;

ALTER TABLE attempt ADD COLUMN guard TEXT;
ALTER TABLE attempt ADD COLUMN guard_text TEXT;
ALTER TABLE attempt ADD COLUMN guard_back_to INTEGER;

ALTER TABLE checkpoint ADD COLUMN given_up INTEGER NOT NULL DEFAULT 0 CHECK (given_up IN (0,1));

ALTER TABLE metric ADD COLUMN valid_maxvio REAL;
ALTER TABLE metric ADD COLUMN layer_maxvio TEXT;

CREATE TABLE lost_work (
    job_id  INTEGER NOT NULL REFERENCES job(id),
    epoch   INTEGER NOT NULL,                   -- of the attempt that decided it
    from_ms INTEGER NOT NULL,
    to_ms   INTEGER NOT NULL CHECK (to_ms >= from_ms),
    PRIMARY KEY (job_id, epoch)
) STRICT;
CREATE TRIGGER lost_work_no_update BEFORE UPDATE ON lost_work BEGIN SELECT RAISE(ABORT, 'lost work is append-only'); END;
CREATE TRIGGER lost_work_no_delete BEFORE DELETE ON lost_work BEGIN SELECT RAISE(ABORT, 'lost work is append-only'); END;
