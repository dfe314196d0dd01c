-- Records, once each, and makes them available. One round trip, one commit.
WITH fresh AS (
    INSERT INTO result (date_created, size, id, checksum, organisation, definition, poll, task,
                        identifier, type, data)
    SELECT now(), octet_length(data), id, checksum, organisation, definition, poll, '',
           definition, 'application/json', data
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bytea[])
      AS given(id, checksum, organisation, definition, poll, data)
    ON CONFLICT (organisation, id) DO NOTHING
    RETURNING date_created, id, organisation
)
INSERT INTO available (date_created, id, organisation)
SELECT date_created, id, organisation FROM fresh
