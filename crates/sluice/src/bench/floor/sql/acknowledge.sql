-- Signs a page off. The keys are those that the list gave. One round trip, one commit.
WITH moved AS (
    DELETE FROM available
    WHERE ctid = ANY (ARRAY(
        SELECT waiting.place
        FROM unnest($2::timestamptz[], $3::uuid[]) AS asked(date_created, id)
        CROSS JOIN LATERAL (
            SELECT ctid AS place FROM available
            WHERE organisation = $1 AND date_created = asked.date_created AND id = asked.id OFFSET 0
        ) AS waiting
    ))
    RETURNING id
)
INSERT INTO consumed (date_consumed, id, organisation)
SELECT now(), id, $1 FROM moved
