-- What one commit recorded of one poll is one row, and not one for each result:
-- of the order that lists walk in, of what is AVAILABLE, and of what one call
-- acknowledged. A result's own row has no index but its key.
--
-- A row holds 200 ids at most, ascending, and is known by the first of them; more of
-- the same commit and poll are in further rows. So every row fits into half a page, and
-- one that shrinks while its results are acknowledged one by one stays where it is.
--
-- Replicas of before can't use this form.

CREATE TABLE batch (
    date_created timestamptz NOT NULL,
    first_id     uuid        NOT NULL,
    organisation text COLLATE "C" NOT NULL,
    poll         text COLLATE "C" NOT NULL,
    ids          uuid[]      NOT NULL,
    PRIMARY KEY (organisation, date_created, poll, first_id)
) WITH (toast_tuple_target = 8160);
CREATE INDEX batch_by_poll ON batch (organisation, poll, date_created);

INSERT INTO batch (date_created, first_id, organisation, poll, ids)
SELECT date_created, ids[1], organisation, poll, ids
FROM (
    SELECT date_created, organisation, poll, array_agg(id ORDER BY id) AS ids
    FROM (SELECT date_created, organisation, poll, id,
                 (row_number() OVER (PARTITION BY organisation, date_created, poll ORDER BY id) - 1) / 200 AS part
          FROM result) AS numbered
    GROUP BY date_created, organisation, poll, part
) AS parts;

DROP INDEX result_by_date;
DROP INDEX result_by_poll;

-- Those of a batch that are AVAILABLE; no row once there are none. It is a queue:
-- vacuum follows by number of rows, as before.
CREATE TABLE available_before AS TABLE available;
DROP TABLE available;
CREATE TABLE available (
    date_created timestamptz NOT NULL,
    first_id     uuid        NOT NULL,
    organisation text COLLATE "C" NOT NULL,
    poll         text COLLATE "C" NOT NULL,
    ids          uuid[]      NOT NULL,
    PRIMARY KEY (organisation, date_created, poll, first_id)
) WITH (
    toast_tuple_target = 8160,
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_insert_threshold = -1,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.5
);
INSERT INTO available (date_created, first_id, organisation, poll, ids)
SELECT b.date_created, b.first_id, b.organisation, b.poll, array_agg(a.id ORDER BY a.id)
FROM batch AS b
CROSS JOIN LATERAL unnest(b.ids) AS member(id)
JOIN available_before AS a
  ON a.organisation = b.organisation AND a.date_created = b.date_created AND a.id = member.id
GROUP BY b.date_created, b.first_id, b.organisation, b.poll;
DROP TABLE available_before;

-- What one call acknowledged of one batch. In weeks of `date_created`, so that it
-- is found, and goes, with the batch.
CREATE TABLE consumed_before AS TABLE consumed;
DROP TABLE consumed;
CREATE TABLE consumed (
    date_created  timestamptz NOT NULL,
    date_consumed timestamptz NOT NULL,
    organisation  text COLLATE "C" NOT NULL,
    poll          text COLLATE "C" NOT NULL,
    ids           uuid[]      NOT NULL
) PARTITION BY RANGE (date_created);
CREATE INDEX consumed_by_batch ON consumed (organisation, date_created, poll);
CREATE TABLE consumed_default PARTITION OF consumed DEFAULT;

-- As before, but that `consumed` is divided by the moment itself.
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
                IF parent = 'consumed' THEN
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
        IF state = 'created' AND parent IN ('consumed', 'data_block') THEN
            -- What fits into a page stays in its row: no second table, no second
            -- index.
            EXECUTE format('ALTER TABLE %I SET (toast_tuple_target = 8160)', partition);
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;

-- The weeks of what was consumed before, and those to come.
SELECT make_week(week)
FROM (SELECT date_trunc('week', date_created AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS week
      FROM batch GROUP BY 1 ORDER BY 1) AS weeks;
SELECT make_week(now()), make_week(now() + interval '7 days'), make_week(now() + interval '14 days');

INSERT INTO consumed (date_created, date_consumed, organisation, poll, ids)
SELECT r.date_created, c.date_consumed, r.organisation, r.poll, array_agg(r.id ORDER BY r.id)
FROM consumed_before AS c
JOIN result AS r ON r.organisation = c.organisation AND r.id = c.id
GROUP BY r.date_created, c.date_consumed, r.organisation, r.poll;
DROP TABLE consumed_before;

-- Who may do what with the new tables, as in V3.
GRANT SELECT, INSERT, UPDATE, DELETE ON batch, available, consumed TO sluice_results_service;
GRANT SELECT ON batch, available, consumed TO sluice_results_tenant;
GRANT UPDATE (ids), DELETE ON available TO sluice_results_tenant;
GRANT INSERT ON consumed TO sluice_results_tenant;
DO $$
DECLARE
    walled text;
BEGIN
    FOREACH walled IN ARRAY ARRAY['batch', 'available', 'consumed'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', walled);
        EXECUTE format('CREATE POLICY service ON %I TO sluice_results_service USING (true)', walled);
        EXECUTE format('CREATE POLICY tenant ON %I TO sluice_results_tenant '
                       'USING (organisation || '''' = current_setting(''sluice.organisation'', true))', walled);
    END LOOP;
    EXECUTE format('ALTER FUNCTION make_week(timestamptz) SECURITY DEFINER SET search_path = %I, pg_temp',
                   current_schema());
END
$$;
