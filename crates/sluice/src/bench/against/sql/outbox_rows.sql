-- Batches that the results service does not have yet. A scan of a small table.
SELECT count(*) FROM outbox
