-- Records results whose data is kept apart from them: in a bucket, or in chunks.
-- Each needs its upload, open or sealed, which is locked and goes with the same
-- commit: so no object is without a row that knows of it, and the clean-up can't
-- take one that is just becoming a result. Returns those whose upload was there.
--
-- One round trip and one commit. Callers sort as for record.sql. A record that
-- was there before is left as it is; its upload is then the clean-up's. Primary
-- keys; OFFSET 0 keeps them so on empty tables, too.
WITH claimed AS MATERIALIZED (
    SELECT given.*
    FROM unnest($1::bigint[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[],
                $7::text[], $8::text[], $9::text[], $10::text[], $11::integer[])
      AS given(size, id, checksum, storage_config, organisation, definition,
               poll, task, identifier, type, signed_urls_seconds)
    CROSS JOIN LATERAL (
        SELECT FROM upload
        WHERE organisation = given.organisation AND id = given.id AND state < 3
          AND storage_config = coalesce(given.storage_config, '00000000-0000-0000-0000-000000000000')
        OFFSET 0
        FOR UPDATE
    ) AS u
), fresh AS (
    INSERT INTO result (date_created, size, id, checksum, storage_config, organisation,
                        definition, poll, task, identifier, type, signed_urls_seconds)
    SELECT now(), size, id, checksum, storage_config, organisation,
           definition, poll, task, identifier, type, signed_urls_seconds
    FROM claimed
    ON CONFLICT (organisation, id) DO NOTHING
    RETURNING date_created, id, organisation, poll, storage_config
), batched AS (
    INSERT INTO batch (date_created, first_id, organisation, poll, ids, storage_config)
    SELECT date_created, ids[1], organisation, poll, ids,
           coalesce(storage_config, '00000000-0000-0000-0000-000000000000'::uuid)
    FROM (
        SELECT date_created, organisation, poll, storage_config, array_agg(id ORDER BY id) AS ids
        FROM (SELECT *, row_number() OVER () AS place FROM fresh) AS numbered
        GROUP BY date_created, organisation, poll, storage_config, (place - 1) / 200
    ) AS parts
    RETURNING date_created, first_id, organisation, poll, ids
), waiting AS (
    INSERT INTO available (date_created, first_id, organisation, poll, ids)
    SELECT date_created, first_id, organisation, poll, ids FROM batched
), settled AS (
    DELETE FROM upload
    WHERE ctid = ANY (ARRAY(
        SELECT locked.place
        FROM fresh
        CROSS JOIN LATERAL (
            SELECT ctid AS place FROM upload
            WHERE organisation = fresh.organisation AND id = fresh.id
              AND storage_config = coalesce(fresh.storage_config, '00000000-0000-0000-0000-000000000000')
            OFFSET 0
        ) AS locked
    ))
)
SELECT organisation, id FROM claimed
