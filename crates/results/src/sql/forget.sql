-- Forgets results that have been EXPIRED for 365 days, at most 2,000: the record and
-- what became of it, and a batch, or what was acknowledged of it in one call, with the
-- last of its records. Index expired_by_deletion, then lookups by key. Returns how many.
WITH old AS MATERIALIZED (
    SELECT organisation, id FROM expired
    WHERE date_deleted < now() - interval '365 days'
    ORDER BY date_deleted
    LIMIT 2000
), batches AS MATERIALIZED (
    SELECT DISTINCT old.organisation, r.date_created, r.poll
    FROM old
    CROSS JOIN LATERAL (
        SELECT date_created, poll FROM result WHERE organisation = old.organisation AND id = old.id OFFSET 0
    ) AS r
), no_record AS (
    DELETE FROM result r USING old WHERE r.organisation = old.organisation AND r.id = old.id
), not_expired AS (
    DELETE FROM expired e USING old WHERE e.organisation = old.organisation AND e.id = old.id
), no_batch AS (
    DELETE FROM batch b USING batches AS of
    WHERE b.organisation = of.organisation AND b.date_created = of.date_created AND b.poll = of.poll
      AND NOT EXISTS (
        SELECT FROM unnest(b.ids) AS member(id)
        CROSS JOIN LATERAL (
            SELECT FROM result WHERE organisation = b.organisation AND id = member.id OFFSET 0
        ) AS r
        WHERE (b.organisation, member.id) NOT IN (SELECT organisation, id FROM old)
    )
), not_consumed AS (
    DELETE FROM consumed c USING batches AS of
    WHERE c.organisation = of.organisation AND c.date_created = of.date_created AND c.poll = of.poll
      AND NOT EXISTS (
        SELECT FROM unnest(c.ids) AS member(id)
        CROSS JOIN LATERAL (
            SELECT FROM result WHERE organisation = c.organisation AND id = member.id OFFSET 0
        ) AS r
        WHERE (c.organisation, member.id) NOT IN (SELECT organisation, id FROM old)
    )
)
SELECT count(*) AS forgotten FROM old
