-- One batch through the gate: markers, unique windows of a day, and an outbox row for
-- each observation that passed both. Returns the ids of those. One round trip, one
-- commit. (What a marker says of an observation that its window suppressed would need
-- a second statement; none is in these runs.)
WITH given AS MATERIALIZED (
    SELECT *
    FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::uuid[], $5::text[], $6::bytea[])
      AS given(id, marker, fingerprint, key, definition, data)
), fresh AS (
    INSERT INTO marker (fingerprint, key, ingest_id, outcome)
    SELECT fingerprint, marker, id, 1 FROM given
    ON CONFLICT (key) DO NOTHING
    RETURNING ingest_id
), opened AS (
    INSERT INTO unique_window AS w (accepted_at, key, ingest_id)
    SELECT now(), key, id FROM given WHERE id IN (SELECT ingest_id FROM fresh)
    ON CONFLICT (key) DO UPDATE
    SET accepted_at = excluded.accepted_at, ingest_id = excluded.ingest_id
    WHERE w.accepted_at <= now() - interval '1 day'
    RETURNING ingest_id
)
INSERT INTO outbox (lane, id, organisation, definition, poll, data)
SELECT $7, id, $8, definition, $9, data FROM given WHERE id IN (SELECT ingest_id FROM opened)
RETURNING id
