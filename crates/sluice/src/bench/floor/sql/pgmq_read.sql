-- Up to $2 messages, hidden from other readers for 30 s. One round trip, one commit.
SELECT msg_id, message::text AS message FROM pgmq.read($1, 30, $2)
