-- Rows this instance has owned for a while, oldest first: among them those it
-- has forgotten. Index outbox_owner.
SELECT id, organisation, octet_length(payload) AS bytes
FROM outbox
WHERE owner = $1 AND set_aside IS NULL AND date_created < clock_timestamp() - interval '5 seconds'
ORDER BY id LIMIT $2
