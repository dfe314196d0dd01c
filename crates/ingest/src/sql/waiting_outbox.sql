-- Rows of this instance that have waited for a while, in order from an id on:
-- among them may be some it no longer knows of, such as those whose deletion was
-- undone by a crash of the server, or whose commit nobody learnt the end of.
-- Index outbox_owner.
SELECT id, organisation, results, octet_length(payload) AS bytes
FROM outbox
WHERE owner = $1 AND id > $2 AND set_aside IS NULL
  AND date_created < clock_timestamp() - interval '5 seconds'
ORDER BY id LIMIT $3
