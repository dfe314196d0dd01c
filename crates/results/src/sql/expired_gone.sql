-- The objects of these batches are confirmed to be gone. Primary key, which OFFSET 0 keeps
-- so on empty tables, too; changed by place, so that the planner has no choice of what to
-- read (IS TRUE is no condition of an index). Places repeat over partitions, keys don't.
WITH gone AS MATERIALIZED (
    SELECT date_created, poll, first_id
    FROM unnest($2::timestamptz[], $3::text[], $4::uuid[]) AS given(date_created, poll, first_id)
)
UPDATE expired SET date_deleted = now()
WHERE ctid = ANY (ARRAY(
    SELECT marked.place
    FROM gone
    CROSS JOIN LATERAL (
        SELECT ctid AS place FROM expired
        WHERE organisation = $1 AND date_created = gone.date_created
          AND poll = gone.poll AND first_id = gone.first_id
        OFFSET 0
    ) AS marked
))
  AND (date_deleted IS NULL) IS TRUE
  AND ((organisation, date_created, poll, first_id) IN (SELECT $1, date_created, poll, first_id FROM gone)) IS TRUE
