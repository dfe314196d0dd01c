-- Storage configs that are NEW or INVALID and were not probed for $1 seconds, least recently
-- probed first: up to $2, and up to $3 of an organisation. They are this replica's: others pass
-- them over for as long. A scan of a table that has few rows per organisation; what is due and
-- within the shares is then looked up by primary key and locked, once, and changed the same
-- way.
WITH due AS MATERIALIZED (
    SELECT organisation, id, date_probed,
           row_number() OVER (PARTITION BY organisation ORDER BY date_probed NULLS FIRST, id) AS place
    FROM storage_config
    WHERE state IN (1, 3) AND (date_probed IS NULL OR date_probed < now() - make_interval(secs => $1))
      AND date_created < now() - interval '5 seconds'
), taken AS MATERIALIZED (
    SELECT c.organisation, c.id
    FROM due
    JOIN storage_config c ON c.organisation = due.organisation AND c.id = due.id
    WHERE due.place <= $3 AND c.date_probed IS NOT DISTINCT FROM due.date_probed
    ORDER BY due.date_probed NULLS FIRST
    LIMIT $2
    FOR UPDATE OF c SKIP LOCKED
)
UPDATE storage_config c
SET date_probed = now()
FROM taken
WHERE c.organisation = taken.organisation AND c.id = taken.id
RETURNING c.*, false AS is_default
