-- Files that are to go. One that was never seen leaves a tombstone under the nil
-- id, so that whoever comes late with its bytes is refused; one whose bytes still
-- flow is left to the clean-up until they have stopped. A file that became a
-- result stays. Primary keys.
WITH given AS MATERIALIZED (
    SELECT organisation, id
    FROM unnest($1::text[], $2::uuid[]) AS asked(organisation, id)
    WHERE NOT EXISTS (SELECT FROM result r WHERE r.organisation = asked.organisation AND r.id = asked.id)
    ORDER BY organisation, id
), marked AS (
    UPDATE upload u SET state = 3
    FROM given
    WHERE u.organisation = given.organisation AND u.id = given.id AND u.state < 3
    RETURNING u.id
)
INSERT INTO upload (organisation, id, storage_config, state, date_touched)
SELECT organisation, id, '00000000-0000-0000-0000-000000000000'::uuid, 4, clock_timestamp()
FROM given
WHERE NOT EXISTS (SELECT FROM upload u WHERE u.organisation = given.organisation AND u.id = given.id)
ON CONFLICT DO NOTHING
