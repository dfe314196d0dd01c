-- What expires goes by batches, too: a batch says where the data of its results is, so
-- that the clean-up reads no records, and what became of all of them is one row.
--
-- A batch holds what one storage config keeps and, inline, what is in one block. It
-- expires as a whole, and the row in `expired` has the key of the one in `batch`; so
-- has the one in `available`.
--
-- Replicas of before can't use this form, and are refused.

-- All at once: nothing is recorded, acknowledged or cleaned up meanwhile.
LOCK TABLE result, batch, available, consumed, expired, cleanup_progress IN ACCESS EXCLUSIVE MODE;

ALTER TABLE batch
    -- Nil: the built-in `db`.
    ADD COLUMN storage_config uuid,
    -- Null: the data is not kept inline.
    ADD COLUMN block uuid;

CREATE TABLE divided AS
SELECT date_created, organisation, poll, storage_config, block, expired, date_deleted, array_agg(id ORDER BY id) AS ids
FROM (
    SELECT r.date_created, r.organisation, r.poll, r.block, r.id,
           coalesce(r.storage_config, '00000000-0000-0000-0000-000000000000') AS storage_config,
           e.id IS NOT NULL AS expired, e.date_deleted,
           (row_number() OVER (PARTITION BY r.organisation, r.date_created, r.poll, r.storage_config, r.block,
                                            e.id IS NOT NULL, e.date_deleted
                               ORDER BY r.id) - 1) / 200 AS part
    FROM result AS r
    LEFT JOIN expired AS e ON e.organisation = r.organisation AND e.id = r.id
) AS numbered
GROUP BY date_created, organisation, poll, storage_config, block, expired, date_deleted, part;

CREATE TABLE waiting AS
SELECT d.date_created, d.ids[1] AS first_id, d.organisation, d.poll, array_agg(member.id ORDER BY member.id) AS ids
FROM divided AS d
CROSS JOIN LATERAL unnest(d.ids) AS member(id)
JOIN (SELECT organisation, date_created, unnest(ids) AS id FROM available) AS a
  ON a.organisation = d.organisation AND a.date_created = d.date_created AND a.id = member.id
GROUP BY d.date_created, d.ids[1], d.organisation, d.poll;

TRUNCATE batch, available;
INSERT INTO batch (date_created, first_id, organisation, poll, ids, storage_config, block)
SELECT date_created, ids[1], organisation, poll, ids, storage_config, block FROM divided;
INSERT INTO available (date_created, first_id, organisation, poll, ids)
SELECT date_created, first_id, organisation, poll, ids FROM waiting;
ALTER TABLE batch ALTER COLUMN storage_config SET NOT NULL;

-- A replica of before says nothing of where data is: what it records would be kept for
-- too short or too long.
CREATE FUNCTION refuse_earlier_builds() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE SQLSTATE 'SL003' USING MESSAGE = 'this build is older than the schema, and can no longer record';
END
$$;
CREATE TRIGGER refuse_earlier_builds BEFORE INSERT ON batch
FOR EACH ROW WHEN (NEW.storage_config IS NULL) EXECUTE FUNCTION refuse_earlier_builds();

DROP TABLE expired;
CREATE TABLE expired (
    date_created   timestamptz NOT NULL,
    -- When the data was confirmed to be gone. Null: it is about to go.
    date_deleted   timestamptz,
    first_id       uuid        NOT NULL,
    storage_config uuid        NOT NULL,
    organisation   text COLLATE "C" NOT NULL,
    poll           text COLLATE "C" NOT NULL,
    ids            uuid[]      NOT NULL,
    PRIMARY KEY (organisation, date_created, poll, first_id)
) PARTITION BY RANGE (date_created);
-- What the clean-up has yet to do.
CREATE INDEX expired_pending ON expired (organisation, storage_config, first_id) WHERE date_deleted IS NULL;
-- What has been EXPIRED for so long that it is forgotten.
CREATE INDEX expired_by_deletion ON expired (date_deleted);
CREATE TABLE expired_default PARTITION OF expired DEFAULT WITH (toast_tuple_target = 8160);

-- As before, but that `expired` is divided by the moment, too, and that nothing is
-- counted of the ids in a row: no plan depends on it, and to do so takes seconds.
CREATE OR REPLACE FUNCTION make_week(moment timestamptz) RETURNS TABLE (partition text, state text)
LANGUAGE plpgsql
AS $$
DECLARE
    monday timestamptz := date_trunc('week', moment AT TIME ZONE 'UTC') AT TIME ZONE 'UTC';
    next   timestamptz := monday + interval '168 hours';
    parent text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['result', 'data_block', 'consumed', 'expired'] LOOP
        partition := parent || to_char(monday AT TIME ZONE 'UTC', '_YYYYMMDD');
        IF to_regclass(partition) IS NOT NULL THEN
            state := 'exists';
        ELSE
            BEGIN
                IF parent IN ('consumed', 'expired') THEN
                    EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                                   partition, parent, monday, next);
                ELSE
                    EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                                   partition, parent, uuid_floor(monday), uuid_floor(next));
                END IF;
                state := 'created';
            EXCEPTION WHEN check_violation THEN
                state := 'occupied';
            END;
        END IF;
        IF state = 'created' AND parent IN ('consumed', 'expired', 'data_block') THEN
            -- What fits into a page stays in its row: no second table, no second
            -- index.
            EXECUTE format('ALTER TABLE %I SET (toast_tuple_target = 8160)', partition);
        END IF;
        IF state = 'created' AND parent IN ('consumed', 'expired') THEN
            EXECUTE format('ALTER TABLE %I ALTER COLUMN ids SET STATISTICS 0', partition);
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;
ALTER TABLE batch ALTER COLUMN ids SET STATISTICS 0;
ALTER TABLE available ALTER COLUMN ids SET STATISTICS 0;
-- Of its partitions, too.
ALTER TABLE consumed ALTER COLUMN ids SET STATISTICS 0;
ALTER TABLE expired ALTER COLUMN ids SET STATISTICS 0;

-- The weeks of what has expired or will, and those to come.
SELECT make_week(week)
FROM (SELECT date_trunc('week', date_created AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS week
      FROM divided GROUP BY 1 ORDER BY 1) AS weeks;
SELECT make_week(now()), make_week(now() + interval '7 days'), make_week(now() + interval '14 days');

INSERT INTO expired (date_created, date_deleted, first_id, storage_config, organisation, poll, ids)
SELECT date_created, date_deleted, ids[1], storage_config, organisation, poll, ids FROM divided WHERE expired;
DROP TABLE divided, waiting;

-- The clean-up walks moment by moment: one that it had come into is walked again.
UPDATE cleanup_progress SET date = date - interval '1 microsecond' WHERE date > '-infinity';
ALTER TABLE cleanup_progress DROP COLUMN id;

-- Who may do what with the new table, as in V3.
GRANT SELECT, INSERT, UPDATE, DELETE ON expired TO sluice_results_service;
GRANT SELECT ON expired TO sluice_results_tenant;
ALTER TABLE expired ENABLE ROW LEVEL SECURITY;
CREATE POLICY service ON expired TO sluice_results_service USING (true);
CREATE POLICY tenant ON expired TO sluice_results_tenant
    USING (organisation || '' = current_setting('sluice.organisation', true));
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION make_week(timestamptz) SECURITY DEFINER SET search_path = %I, pg_temp',
                   current_schema());
END
$$;
