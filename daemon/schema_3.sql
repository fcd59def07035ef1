-- From schema version 2 to 3: promised starts. Runs in one transaction.
ALTER TABLE job ADD COLUMN promised_ms INTEGER;
