-- What decides where results go: the defaults of organisations ($1), and the
-- storage configs that results name ($2, $3, pair by pair). Lookups by primary
-- key; OFFSET 0 keeps them so on empty tables, too. One round trip, no locks.
SELECT c.*, true AS is_default
FROM unnest($1::text[]) AS asked(organisation)
CROSS JOIN LATERAL (
    SELECT storage_config FROM storage_default WHERE organisation = asked.organisation OFFSET 0
) AS d
CROSS JOIN LATERAL (
    SELECT * FROM storage_config WHERE organisation = asked.organisation AND id = d.storage_config OFFSET 0
) AS c
UNION ALL
SELECT c.*, false AS is_default
FROM unnest($2::text[], $3::uuid[]) AS named(organisation, id)
CROSS JOIN LATERAL (
    SELECT * FROM storage_config WHERE organisation = named.organisation AND id = named.id OFFSET 0
) AS c
