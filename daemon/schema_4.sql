-- From schema version 3 to 4: how jobs ended, apart from their rows. A start reads only this of a million of them.
CREATE INDEX job_ended ON job(state, array_id, array_size) WHERE state IN ('COMPLETED','FAILED','CANCELLED');
