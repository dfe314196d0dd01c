-- Messages that are done with. One round trip, one commit.
SELECT pgmq.delete($1, $2::bigint[])
