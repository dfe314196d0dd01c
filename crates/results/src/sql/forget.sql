-- Forgets results that have been EXPIRED for 365 days, at most 50 batches: the records
-- and what became of them, and a batch, or what was acknowledged of it in one call, with
-- the last of its records. Index expired_by_deletion, then lookups by key. Returns how many
-- results; none, and that it is not ours, while somebody else does it, which the advisory
-- lock tells (the bytes of `forget`).
WITH alone AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock(x'666F72676574'::bigint) AS is_mine
), old AS MATERIALIZED (
    SELECT organisation, date_created, poll, first_id, ids FROM expired
    WHERE date_deleted < now() - interval '365 days' AND (SELECT is_mine FROM alone)
    ORDER BY date_deleted
    LIMIT 50
), member AS MATERIALIZED (
    SELECT old.organisation, given.id FROM old CROSS JOIN LATERAL unnest(old.ids) AS given(id)
), batches AS MATERIALIZED (
    SELECT DISTINCT organisation, date_created, poll FROM old
), no_record AS (
    DELETE FROM result r USING member WHERE r.organisation = member.organisation AND r.id = member.id
), not_expired AS (
    DELETE FROM expired e USING old
    WHERE e.organisation = old.organisation AND e.date_created = old.date_created
      AND e.poll = old.poll AND e.first_id = old.first_id
), no_batch AS (
    DELETE FROM batch b USING batches AS of
    WHERE b.organisation = of.organisation AND b.date_created = of.date_created AND b.poll = of.poll
      AND NOT EXISTS (
        SELECT FROM unnest(b.ids) AS left_over(id)
        CROSS JOIN LATERAL (
            SELECT FROM result WHERE organisation = b.organisation AND id = left_over.id OFFSET 0
        ) AS r
        WHERE (b.organisation, left_over.id) NOT IN (SELECT organisation, id FROM member)
    )
), not_consumed AS (
    DELETE FROM consumed c USING batches AS of
    WHERE c.organisation = of.organisation AND c.date_created = of.date_created AND c.poll = of.poll
      AND NOT EXISTS (
        SELECT FROM unnest(c.ids) AS left_over(id)
        CROSS JOIN LATERAL (
            SELECT FROM result WHERE organisation = c.organisation AND id = left_over.id OFFSET 0
        ) AS r
        WHERE (c.organisation, left_over.id) NOT IN (SELECT organisation, id FROM member)
    )
)
SELECT (SELECT is_mine FROM alone) AS is_mine, count(*) AS forgotten FROM member
