-- Objects about to be written for results: a row each, or a sign of life on one
-- that was there. Callers sort by the primary key.
--
-- One that the clean-up has in hand or has removed is not begun. Of a result without a
-- record that is an earlier build's doing, which removed what had given no sign of life:
-- it is begun an hour later, when no such removal can still be on its way.
INSERT INTO upload AS u (organisation, id, storage_config, state, date_touched)
SELECT organisation, id, storage_config, 1, clock_timestamp()
FROM unnest($1::text[], $2::uuid[], $3::uuid[]) AS given(organisation, id, storage_config)
ON CONFLICT (organisation, id, storage_config) DO UPDATE
SET state = 1, date_touched = excluded.date_touched
WHERE u.state = 1 OR u.state = 4 AND u.date_touched < excluded.date_touched - interval '1 hour'
RETURNING organisation, id
