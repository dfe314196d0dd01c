-- How long ago what one storage config keeps ($2; nil: the built-in `db`, which keeps it for $4
-- seconds) was due, in seconds: the first that is marked, or the first batch of the organisation
-- that is due and that its walk has not come to ($3). 0 if there is none.
-- Index expired_pending and primary keys.
SELECT coalesce(max(extract(epoch FROM now() - due.date_created) - terms.seconds), 0)::float8 AS late_seconds
FROM (
    SELECT retention_seconds AS seconds FROM storage_config WHERE organisation = $1 AND id = $2 AND managed
    UNION ALL
    SELECT $4::bigint WHERE $2 = '00000000-0000-0000-0000-000000000000'::uuid
) AS terms
CROSS JOIN LATERAL (
    (
        SELECT date_created FROM expired
        WHERE organisation = $1 AND storage_config = $2 AND date_deleted IS NULL
          AND first_id > '00000000-0000-0000-0000-000000000000'
        ORDER BY first_id
        LIMIT 1
    )
    UNION ALL
    (
        SELECT date_created FROM batch
        WHERE organisation = $1 AND date_created > $3
          AND date_created < now() - make_interval(secs => terms.seconds)
        ORDER BY date_created
        LIMIT 1
    )
) AS due
WHERE terms.seconds > 0
