-- Whether any of the rows that only the transaction in doubt could have written
-- is there: its outbox rows, or markers that tell its ids. After a crash the
-- server may give a lost transaction's number to another one, so its status
-- alone proves nothing. Primary keys.
SELECT EXISTS (SELECT FROM outbox WHERE id = ANY($1))
    OR EXISTS (
        SELECT FROM unnest($2::uuid[], $3::uuid[]) AS given(key, ingest_id)
        JOIN marker m ON m.key = given.key AND m.ingest_id = given.ingest_id
    ) AS found
