-- The results database. What never changes (result, data_block) is kept apart
-- from what does (available, consumed, expired), so that acknowledging moves a
-- narrow row and rewrites none.
--
-- Text that is a key sorts by its bytes (COLLATE "C"): every replica and every
-- server version agree on the order.

-- The record of each accepted observation. Written once, never updated. The
-- 8-byte columns come first, so that no row is padded.
CREATE TABLE result (
    date_created   timestamptz NOT NULL,
    size           bigint      NOT NULL,
    -- Where the data starts in its block. Null with `block`.
    block_offset   integer,
    id             uuid        NOT NULL,
    -- MD5 of the data: a uuid is 16 bytes without a header.
    checksum       uuid        NOT NULL,
    -- The data_block that holds the data. Null: the data is not kept inline.
    block          uuid,
    -- Null: the built-in `db`.
    storage_config uuid,
    organisation   text COLLATE "C" NOT NULL,
    definition     text COLLATE "C" NOT NULL,
    poll           text COLLATE "C" NOT NULL,
    task           text COLLATE "C" NOT NULL,
    identifier     text COLLATE "C" NOT NULL,
    type           text COLLATE "C" NOT NULL
) PARTITION BY RANGE (id);

-- Lists in order, without sorting: all of an organisation's, and one poll's.
-- The order of these three statements matters. In a partition that is still
-- empty all indexes look equally cheap to the planner, also those of which a
-- lookup by (organisation, id) would have to read the whole organisation; it
-- then takes the youngest, and keeps that plan while the partition fills.
CREATE INDEX result_by_date ON result (organisation, date_created, id);
CREATE INDEX result_by_poll ON result (organisation, poll, date_created, id);
ALTER TABLE result ADD PRIMARY KEY (organisation, id);

-- The data of the inline records: what one commit recorded of one
-- organisation, concatenated and compressed with zstd. A hundred small records
-- cost one row here.
CREATE TABLE data_block (
    id           uuid    NOT NULL,
    -- Size before compression, in bytes.
    size         integer NOT NULL,
    organisation text COLLATE "C" NOT NULL,
    bytes        bytea   NOT NULL,
    PRIMARY KEY (organisation, id)
) PARTITION BY RANGE (id);
-- The bytes are compressed already.
ALTER TABLE data_block ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- A row for exactly as long as a result is AVAILABLE. The default list walks
-- it. It is a queue: rows come and go all the time, so vacuum follows by
-- number of rows, not by share of the table, and does not doze.
CREATE TABLE available (
    date_created timestamptz NOT NULL,
    id           uuid        NOT NULL,
    organisation text COLLATE "C" NOT NULL,
    PRIMARY KEY (organisation, date_created, id)
) WITH (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_insert_threshold = -1,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.5
);

-- A row for each result that was acknowledged.
CREATE TABLE consumed (
    date_consumed timestamptz NOT NULL,
    id            uuid        NOT NULL,
    organisation  text COLLATE "C" NOT NULL,
    PRIMARY KEY (organisation, id)
) PARTITION BY RANGE (id);

-- A row for each result whose data the clean-up removed.
CREATE TABLE expired (
    date_deleted timestamptz NOT NULL,
    id           uuid        NOT NULL,
    organisation text COLLATE "C" NOT NULL,
    PRIMARY KEY (organisation, id)
) PARTITION BY RANGE (id);

-- The lowest UUIDv7 of a moment.
CREATE FUNCTION uuid_floor(moment timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- Makes the partitions of the week that `moment` falls into (Monday to Monday,
-- UTC). Says what became of each table: `created`, `exists`, or `occupied`
-- when the DEFAULT partition already holds rows of that week: those stay where
-- they are, and so does the rest of their week.
CREATE FUNCTION make_week(moment timestamptz) RETURNS TABLE (partition text, state text)
LANGUAGE plpgsql
AS $$
DECLARE
    monday timestamp := date_trunc('week', moment AT TIME ZONE 'UTC');
    low    uuid := uuid_floor(monday AT TIME ZONE 'UTC');
    high   uuid := uuid_floor((monday + interval '7 days') AT TIME ZONE 'UTC');
    parent text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['result', 'data_block', 'consumed', 'expired'] LOOP
        partition := parent || to_char(monday, '_YYYYMMDD');
        IF to_regclass(partition) IS NOT NULL THEN
            state := 'exists';
        ELSE
            BEGIN
                EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                               partition, parent, low, high);
                state := 'created';
            EXCEPTION WHEN check_violation THEN
                state := 'occupied';
            END;
        END IF;
        IF state = 'created' AND parent = 'data_block' THEN
            -- A block that fits into a page stays in its row: no second table,
            -- no second index.
            EXECUTE format('ALTER TABLE %I SET (toast_tuple_target = 8160)', partition);
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;

-- What belongs to no week that was made: ids of clocks that are far off.
CREATE TABLE result_default     PARTITION OF result     DEFAULT;
CREATE TABLE data_block_default PARTITION OF data_block DEFAULT;
CREATE TABLE consumed_default   PARTITION OF consumed   DEFAULT;
CREATE TABLE expired_default    PARTITION OF expired    DEFAULT;

SELECT make_week(now()), make_week(now() + interval '7 days'), make_week(now() + interval '14 days');
