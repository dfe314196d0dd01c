-- Gives up uploads: their rows go, and rows of the outbox that belong to whoever
-- comes first say that they are to be discarded, in one statement. Waits for a
-- gate that holds a row, and does nothing if it decided: then no row is left.
-- $1 are the uploads of one organisation, all locked by this transaction or just
-- one. Primary key.
WITH gone AS (
    DELETE FROM file_upload WHERE id = ANY($1::uuid[]) RETURNING id
)
INSERT INTO outbox (id, organisation, owner, format, results, traceparent, payload)
SELECT $2, $3, NULL, $4, 0, '', $5
WHERE EXISTS (SELECT FROM gone)
