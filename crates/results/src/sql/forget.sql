-- Forgets results that have been EXPIRED for 365 days, at most 2,000. Index
-- expired_by_deletion, then primary keys. Returns how many.
WITH old AS MATERIALIZED (
    SELECT organisation, id FROM expired
    WHERE date_deleted < now() - interval '365 days'
    ORDER BY date_deleted
    LIMIT 2000
), no_record AS (
    DELETE FROM result r USING old WHERE r.organisation = old.organisation AND r.id = old.id
), not_consumed AS (
    DELETE FROM consumed c USING old WHERE c.organisation = old.organisation AND c.id = old.id
), not_expired AS (
    DELETE FROM expired e USING old WHERE e.organisation = old.organisation AND e.id = old.id
)
SELECT count(*) AS forgotten FROM old
