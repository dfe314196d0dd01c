-- The whole backlog, of each organisation that has any: rows and bytes as kept, rows
-- that are set aside, and how long ago the oldest of the others was committed. A scan
-- of a table that holds one row per organisation and commit, payloads aside.
SELECT organisation,
       count(*) AS rows,
       sum(octet_length(payload))::bigint AS bytes,
       count(*) FILTER (WHERE set_aside IS NOT NULL) AS set_aside,
       coalesce(extract(epoch FROM clock_timestamp() - min(date_created) FILTER (WHERE set_aside IS NULL)), 0)::float8
           AS oldest_age_seconds
FROM outbox
GROUP BY organisation
