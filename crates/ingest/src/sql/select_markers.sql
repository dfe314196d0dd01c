-- Markers of these keys in the current slot, other than the ones this
-- transaction just inserted: asked when some could not be inserted. A committed
-- marker never changes, so no lock. Primary key of the current slot; OFFSET 0
-- keeps it so on empty tables, too.
SELECT m.*
FROM unnest($1::uuid[], $2::uuid[]) AS given(key, ingest_id)
CROSS JOIN LATERAL (
    SELECT key, ingest_id, fingerprint, outcome
    FROM marker
    WHERE key = given.key AND slot = (SELECT current FROM gate_slot WHERE one)
      AND ingest_id IS DISTINCT FROM given.ingest_id
    OFFSET 0
) AS m
