-- Forgets instances that have been silent for an hour and own nothing any more, and
-- sessions of instances that are forgotten. Few rows.
WITH forgotten AS (
    DELETE FROM instance i
    WHERE i.date_seen < clock_timestamp() - interval '1 hour'
      AND NOT EXISTS (SELECT FROM outbox o WHERE o.owner = i.id)
      AND NOT EXISTS (SELECT FROM file_upload u WHERE u.owner = i.id)
)
DELETE FROM gate_session s
WHERE NOT EXISTS (SELECT FROM instance i WHERE i.id = s.instance)
