-- Says that this instance is alive. Primary key.
INSERT INTO instance (id, date_seen) VALUES ($1, clock_timestamp())
ON CONFLICT (id) DO UPDATE SET date_seen = excluded.date_seen
