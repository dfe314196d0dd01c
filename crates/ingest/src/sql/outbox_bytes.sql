-- The whole backlog: rows and bytes as kept. A scan of a table that holds one
-- row per organisation and commit, payloads aside.
SELECT count(*) AS rows, coalesce(sum(octet_length(payload)), 0)::bigint AS bytes FROM outbox
