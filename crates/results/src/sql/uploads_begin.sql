-- Objects about to be written for results: a row each, or a sign of life on one
-- that was there. Callers sort by the primary key. An object that the clean-up has
-- in hand is not begun; it is tried again later.
INSERT INTO upload AS u (organisation, id, storage_config, state, date_touched)
SELECT organisation, id, storage_config, 1, clock_timestamp()
FROM unnest($1::text[], $2::uuid[], $3::uuid[]) AS given(organisation, id, storage_config)
ON CONFLICT (organisation, id, storage_config) DO UPDATE
SET state = 1, date_touched = excluded.date_touched
WHERE u.state IN (1, 4)
RETURNING organisation, id
