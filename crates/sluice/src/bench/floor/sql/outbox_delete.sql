-- Rows that are recorded. Primary key, one round trip, one commit.
DELETE FROM outbox WHERE lane = $1 AND seq = ANY ($2)
