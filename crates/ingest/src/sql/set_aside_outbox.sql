-- A row that can't be emitted as it is, kept for an operator. Primary key.
UPDATE outbox SET set_aside = $2 WHERE id = $1
