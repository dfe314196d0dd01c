-- The oldest rows of a lane. Primary key, one round trip, no locks: a lane has one
-- mover.
SELECT seq, id, organisation, definition, poll, data
FROM outbox WHERE lane = $1 ORDER BY seq LIMIT $2
