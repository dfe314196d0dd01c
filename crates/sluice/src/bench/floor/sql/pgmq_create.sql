-- A queue.
SELECT pgmq.create($1)
