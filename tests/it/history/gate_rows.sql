-- The last row that each transaction wrote of each key. Times in microseconds.
SELECT DISTINCT ON (kind, key, xid)
       kind, key::text, xid, ingest_id::text, outcome, used, organisation, results,
       (extract(epoch FROM began) * 1000000)::bigint AS began,
       (extract(epoch FROM at) * 1000000)::bigint AS at,
       (extract(epoch FROM accepted_at) * 1000000)::bigint AS accepted_at,
       (extract(epoch FROM window_start) * 1000000)::bigint AS window_start
FROM history_log
ORDER BY kind, key, xid, n DESC
