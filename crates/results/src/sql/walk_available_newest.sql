-- The keys of a page of what is AVAILABLE, newest first: the default list, which looks
-- for the records of these in memory first. Walks the key of `available`.
-- One round trip, no locks.
--
-- The ids of all batches of one moment are put in order, moment by moment, and no
-- more of them than the page needs.
SELECT b.date_created, member.id
FROM available AS b
CROSS JOIN LATERAL unnest(b.ids) AS member(id)
WHERE b.organisation = $1
  AND b.date_created >= $2 AND b.date_created <= $4
  AND (b.date_created, member.id) > ($2, $3) AND (b.date_created, member.id) < ($4, $5)
ORDER BY b.date_created DESC, member.id DESC
LIMIT $6
