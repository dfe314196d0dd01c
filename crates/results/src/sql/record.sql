-- Records results of many organisations: the records that are not there yet,
-- then, only for those, their batches, that they are available, and the blocks that
-- hold their data. Records that were there before are left as they are. A row for each
-- that was not.
--
-- One round trip and one commit for up to 1,000 results. Callers sort the
-- records by (organisation, storage config, poll, id), so that concurrent recordings of the same
-- ids wait for each other in one direction only (earlier builds have another
-- order: a deadlock with one is tried again). Locks nothing else that exists before.
WITH fresh AS (
    INSERT INTO result (date_created, size, block_offset, id, checksum, block, storage_config, organisation,
                        definition, poll, task, identifier, type, signed_urls_seconds)
    SELECT now(), size, block_offset, id, checksum, block, storage_config, organisation,
           definition, poll, task, identifier, type, signed_urls_seconds
    FROM unnest($1::bigint[], $2::integer[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[],
                $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $16::uuid[], $17::integer[])
      AS given(size, block_offset, id, checksum, block, organisation,
               definition, poll, task, identifier, type, storage_config, signed_urls_seconds)
    ON CONFLICT (organisation, id) DO NOTHING
    RETURNING date_created, id, organisation, poll, storage_config, block
), batched AS (
    INSERT INTO batch (date_created, first_id, organisation, poll, ids, storage_config, block)
    SELECT date_created, ids[1], organisation, poll, ids,
           coalesce(storage_config, '00000000-0000-0000-0000-000000000000'::uuid), block
    FROM (
        SELECT date_created, organisation, poll, storage_config, block, array_agg(id ORDER BY id) AS ids
        FROM (SELECT *, row_number() OVER () AS place FROM fresh) AS numbered
        GROUP BY date_created, organisation, poll, storage_config, block, (place - 1) / 200
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
    WHERE id = ANY (ARRAY(SELECT DISTINCT block FROM fresh))
)
SELECT FROM fresh
