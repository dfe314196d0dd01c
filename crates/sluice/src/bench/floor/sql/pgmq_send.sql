-- A batch of JSON texts. One round trip, one commit.
SELECT pgmq.send_batch($1, $2::text[]::jsonb[])
