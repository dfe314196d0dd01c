-- Records results of many organisations, as record.sql does, of which none is there
-- yet. Fails if one is: where none is, that is cheaper than to look first. The records
-- are the main statement, which is done first: one that fails has written nothing else.
--
-- One round trip and one commit for up to 1,000 results, sorted as record.sql says. A
-- batch is a part of them ($18 to $19, from 1).
WITH batched AS (
    INSERT INTO batch (date_created, first_id, organisation, poll, ids, storage_config, block)
    SELECT now(), ($3::uuid[])[first], organisation, poll, ($3::uuid[])[first:last],
           coalesce(storage_config, '00000000-0000-0000-0000-000000000000'::uuid), block
    FROM unnest($18::integer[], $19::integer[], $20::text[], $21::text[], $22::uuid[], $23::uuid[])
      AS part(first, last, organisation, poll, storage_config, block)
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
-- All arrays in step. In a FROM clause each would be stored aside first, row by row.
SELECT now(), unnest($1::bigint[]), unnest($2::integer[]), unnest($3::uuid[]), unnest($4::uuid[]),
       unnest($5::uuid[]), unnest($16::uuid[]), unnest($6::text[]),
       unnest($7::text[]), unnest($8::text[]), unnest($9::text[]), unnest($10::text[]), unnest($11::text[]),
       unnest($17::integer[])
