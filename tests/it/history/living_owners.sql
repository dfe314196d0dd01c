-- The instances that beat since a moment and have rows in the outbox.
SELECT id FROM instance
WHERE date_seen > $1 AND EXISTS (SELECT FROM outbox WHERE owner = instance.id AND set_aside IS NULL)
