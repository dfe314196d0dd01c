-- Moves AVAILABLE results to CONSUMED and returns the ids that were moved. What
-- is unknown, expired or consumed already is passed over. One round trip;
-- locks the rows it deletes, in the order of the ids given (callers sort them,
-- so that two batches can't wait for each other). Each id is looked up in the
-- primary keys of `result` (for its date) and `available`; a row that another
-- transaction deletes first is waited for and then no longer there.
WITH moved AS (
    DELETE FROM available AS a
    USING unnest($2::uuid[]) AS asked(id)
    JOIN result AS r ON r.organisation = $1 AND r.id = asked.id
    WHERE a.organisation = $1 AND a.date_created = r.date_created AND a.id = asked.id
    RETURNING a.id
)
INSERT INTO consumed (organisation, id, date_consumed)
SELECT $1, id, now() FROM moved
RETURNING id
