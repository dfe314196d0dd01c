-- Open uploads without a sign of life for $1 seconds at a moment, at most 500, and what becomes of
-- each; returns how many there were. A file is given up: marked to be removed. A result's
-- object belongs to its record if that is kept here: only the row goes. (Here is a place,
-- that is, a URL: several storage configs may have the same, and an object then has one key
-- in all of them. If they differ in their endpoints, the object stays.) If it is recorded
-- elsewhere, by another try, the object is marked to be removed. If it is not recorded,
-- another try will come, for ingest hands over until there is a record: the object waits
-- for it, however long, and is looked at again after as many seconds.
--
-- What is marked stays marked: a file that was given up is never sealed, and nothing is
-- recorded twice. So no object that is removed here can be a record's, now or later,
-- however many replicas remove it, and however late a removal gets there: nothing rests on
-- clocks or leases.
--
-- Index upload_left, then primary keys; a record that is just being made holds the row's
-- lock, and is passed over. A file's type is set from the beginning; earlier builds did not
-- do so, and what they opened is known by what only files have, or waits like a result.
WITH idle AS MATERIALIZED (
    SELECT organisation, id, storage_config,
           type <> '' OR multipart IS NOT NULL
               OR storage_config = '00000000-0000-0000-0000-000000000000' AS is_file
    FROM upload
    WHERE state = 1 AND state <> 2 AND date_touched < $2::timestamptz - make_interval(secs => $1)
    ORDER BY date_touched
    LIMIT 500
    FOR UPDATE SKIP LOCKED
), found AS MATERIALIZED (
    SELECT i.organisation, i.id, i.storage_config,
           i.is_file OR coalesce(here.url = 'db://results', false) AS is_file,
           r.keeper IS NOT NULL AS is_recorded,
           coalesce(r.keeper = i.storage_config OR keeper.url = here.url, false) AS is_here
    FROM idle AS i
    LEFT JOIN LATERAL (
        SELECT coalesce(storage_config, '00000000-0000-0000-0000-000000000000') AS keeper
        FROM result WHERE organisation = i.organisation AND id = i.id OFFSET 0
    ) AS r ON true
    LEFT JOIN LATERAL (
        SELECT url FROM storage_config WHERE organisation = i.organisation AND id = i.storage_config OFFSET 0
    ) AS here ON true
    LEFT JOIN LATERAL (
        SELECT url FROM storage_config WHERE organisation = i.organisation AND id = r.keeper OFFSET 0
    ) AS keeper ON true
), settled AS (
    DELETE FROM upload u USING found f
    WHERE u.organisation = f.organisation AND u.id = f.id AND u.storage_config = f.storage_config
      AND f.is_here
), marked AS (
    UPDATE upload u SET state = 3
    FROM found f
    WHERE u.organisation = f.organisation AND u.id = f.id AND u.storage_config = f.storage_config
      AND NOT f.is_here AND (f.is_recorded OR f.is_file)
), waiting AS (
    UPDATE upload u SET date_touched = clock_timestamp()
    FROM found f
    WHERE u.organisation = f.organisation AND u.id = f.id AND u.storage_config = f.storage_config
      AND NOT f.is_recorded AND NOT f.is_file
)
SELECT count(*) AS idle FROM idle
