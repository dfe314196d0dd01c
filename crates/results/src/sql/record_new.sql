-- Records results of many organisations, as record.sql does, of which none is there
-- yet. Fails if one is: where none is, that is cheaper than to look first. The records
-- are the main statement, which is done first: one that fails has written nothing else.
--
-- One round trip and one commit for up to 1,000 results, sorted by (organisation, id).
WITH batched AS (
    INSERT INTO batch (date_created, first_id, organisation, poll, ids)
    SELECT date_created, ids[1], organisation, poll, ids
    FROM (
        SELECT now() AS date_created, organisation, poll, array_agg(id ORDER BY id) AS ids
        FROM unnest($3::uuid[], $6::text[], $8::text[])
          WITH ORDINALITY AS given(id, organisation, poll, place)
        GROUP BY organisation, poll, (place - 1) / 200
    ) AS parts
    RETURNING date_created, first_id, organisation, poll, ids
), waiting AS (
    INSERT INTO available (date_created, first_id, organisation, poll, ids)
    SELECT date_created, first_id, organisation, poll, ids FROM batched
), kept AS (
    INSERT INTO data_block (id, size, organisation, bytes)
    SELECT id, size, organisation, bytes
    FROM unnest($12::uuid[], $13::integer[], $14::text[], $15::bytea[])
      AS packed(id, size, organisation, bytes)
)
INSERT INTO result (date_created, size, block_offset, id, checksum, block, storage_config, organisation,
                    definition, poll, task, identifier, type, signed_urls_seconds)
SELECT now(), size, block_offset, id, checksum, block, storage_config, organisation,
       definition, poll, task, identifier, type, signed_urls_seconds
FROM unnest($1::bigint[], $2::integer[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[],
            $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $16::uuid[], $17::integer[])
  AS given(size, block_offset, id, checksum, block, organisation,
           definition, poll, task, identifier, type, storage_config, signed_urls_seconds)
