-- Gives this instance's rows to whoever comes first. Index outbox_owner.
UPDATE outbox SET owner = NULL WHERE owner = $1
