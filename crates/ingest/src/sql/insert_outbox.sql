-- What this commit accepted, and which files it did not, one row per organisation.
INSERT INTO outbox (id, organisation, owner, format, results, traceparent, payload)
SELECT given.id, given.organisation, $3, $4, given.results, given.traceparent, given.payload
FROM unnest($1::uuid[], $2::text[], $5::integer[], $6::text[], $7::bytea[])
     AS given(id, organisation, results, traceparent, payload)
