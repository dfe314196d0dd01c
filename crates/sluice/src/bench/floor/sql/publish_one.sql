-- The same for one observation: one round trip, one commit.
WITH fresh AS (
    INSERT INTO marker (fingerprint, key, ingest_id, outcome)
    VALUES ($3::bigint, $2::uuid, $1::uuid, 1)
    ON CONFLICT (key) DO NOTHING
    RETURNING ingest_id
), opened AS (
    INSERT INTO unique_window AS w (accepted_at, key, ingest_id)
    SELECT now(), $4::uuid, ingest_id FROM fresh
    ON CONFLICT (key) DO UPDATE
    SET accepted_at = excluded.accepted_at, ingest_id = excluded.ingest_id
    WHERE w.accepted_at <= now() - interval '1 day'
    RETURNING ingest_id
)
INSERT INTO outbox (lane, id, organisation, definition, poll, data)
SELECT $7, ingest_id, $8, $5::text, $9, $6::bytea FROM opened
RETURNING id
