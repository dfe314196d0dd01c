-- The objects of these batches are confirmed to be gone. Primary key, each in its own week:
-- ANY keeps the planner from a walk of all that the organisation has there, and IS TRUE
-- from another index.
WITH gone AS MATERIALIZED (
    SELECT $1 AS organisation, date_created, poll, first_id
    FROM unnest($2::timestamptz[], $3::text[], $4::uuid[]) AS given(date_created, poll, first_id)
)
UPDATE expired SET date_deleted = now()
FROM gone
WHERE expired.organisation = ANY (ARRAY[gone.organisation]) AND expired.date_created = gone.date_created
  AND expired.poll = gone.poll AND expired.first_id = gone.first_id
  AND (expired.date_deleted IS NULL) IS TRUE
