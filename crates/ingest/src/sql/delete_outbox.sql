-- Rows whose results are all recorded, and what is less in the outbox now. Primary key.
WITH deleted AS (
    DELETE FROM outbox WHERE id = ANY ($1) RETURNING organisation, octet_length(payload) AS bytes
)
SELECT organisation, sum(bytes)::bigint AS bytes FROM deleted GROUP BY organisation
