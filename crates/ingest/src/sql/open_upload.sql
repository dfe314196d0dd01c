-- An upload that begins, and a sign of life of its owner, so that nobody takes it
-- for a dead one's before its first heartbeat.
WITH alive AS (
    INSERT INTO instance (id, date_seen) VALUES ($3, clock_timestamp()) ON CONFLICT (id) DO NOTHING
)
INSERT INTO file_upload (id, organisation, owner) VALUES ($1, $2, $3)
