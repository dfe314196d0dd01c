-- The whole backlog: bytes as kept, of each organisation that has any. A scan of
-- a table that holds one row per organisation and commit, payloads aside.
SELECT organisation, sum(octet_length(payload))::bigint AS bytes FROM outbox GROUP BY organisation
