-- Uploads that are to be removed, and that nobody writes any more, after a place, of those
-- that were last touched before a moment; and
-- whether something else has the same object: a record that is kept at the same place, or
-- an upload there that may become one. Such are of results, and marked by an earlier build,
-- which looked at the storage config instead of its URL: their objects stay.
--
-- Index upload_left, then a sort of what is left over; the rest is looked up by primary
-- keys, which OFFSET 0 keeps so on empty tables, too.
SELECT u.organisation, u.id, u.storage_config, u.multipart,
       coalesce(record.is_here OR other.is_here, false) AS is_kept
FROM (
    SELECT organisation, id, storage_config, multipart
    FROM upload
    WHERE state = 3 AND state <> 2
      AND (size IS NOT NULL OR date_touched < clock_timestamp() - make_interval(secs => $4))
      AND date_touched < $5 AND (organisation, id, storage_config) > ($1, $2, $3)
    ORDER BY organisation, id, storage_config
    LIMIT 500
) AS u
LEFT JOIN LATERAL (
    SELECT url FROM storage_config WHERE organisation = u.organisation AND id = u.storage_config OFFSET 0
) AS here ON true
LEFT JOIN LATERAL (
    SELECT true AS is_here
    FROM (SELECT storage_config FROM result WHERE organisation = u.organisation AND id = u.id OFFSET 0) AS r
    CROSS JOIN LATERAL (
        SELECT url FROM storage_config WHERE organisation = u.organisation AND id = r.storage_config OFFSET 0
    ) AS keeper
    WHERE keeper.url = here.url
) AS record ON true
LEFT JOIN LATERAL (
    SELECT true AS is_here
    FROM (
        SELECT storage_config FROM upload
        WHERE organisation = u.organisation AND id = u.id AND storage_config <> u.storage_config AND state < 3
        OFFSET 0
    ) AS o
    CROSS JOIN LATERAL (
        SELECT url FROM storage_config WHERE organisation = u.organisation AND id = o.storage_config OFFSET 0
    ) AS keeper
    WHERE keeper.url = here.url
    LIMIT 1
) AS other ON true
ORDER BY u.organisation, u.id, u.storage_config
