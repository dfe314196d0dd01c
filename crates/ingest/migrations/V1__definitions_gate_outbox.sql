-- Definitions, the gate's state, and the outbox.

-- The rules. A deleted definition stays as a tombstone, so that replicas can
-- follow changes by revision alone.
CREATE TABLE definition (
    id                      uuid        NOT NULL,
    organisation            text        COLLATE "C" NOT NULL, -- '' is system-wide
    path                    text        COLLATE "C" NOT NULL,
    description             text        NOT NULL,
    unique_seconds          bigint,
    unique_by               text[]      NOT NULL,
    throttle_count          bigint,
    throttle_period_seconds bigint,
    json_schema             text        NOT NULL,
    storage_config          uuid,
    disabled                boolean     NOT NULL,
    etag                    text        NOT NULL,
    revision                bigint      NOT NULL,
    deleted                 boolean     NOT NULL DEFAULT false,
    date_created            timestamptz NOT NULL,
    date_updated            timestamptz NOT NULL,
    PRIMARY KEY (organisation, path)
);
CREATE INDEX definition_id ON definition (id);
CREATE INDEX definition_revision ON definition (revision);

-- Counts the changes of definitions. Its one row is locked by every change, so
-- revisions become visible in order.
CREATE TABLE registry_revision (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    revision bigint  NOT NULL
);
INSERT INTO registry_revision (revision) VALUES (0);

-- Markers and windows are kept in three slots used in turn. New rows go to the
-- current slot, look-ups probe all, and clean-up truncates the slot that comes
-- next: what is in it is then older than the retention. No row is ever deleted.
CREATE TABLE gate_slot (
    one     boolean     PRIMARY KEY DEFAULT true CHECK (one),
    current smallint    NOT NULL CHECK (current BETWEEN 0 AND 2),
    since   timestamptz NOT NULL
);
INSERT INTO gate_slot (current, since) VALUES (0, clock_timestamp());

-- What was said about each progress marker. `key` is a hash over organisation,
-- definition and chkpt (or the request's stand-in for it).
CREATE TABLE marker (
    fingerprint bigint   NOT NULL, -- of the content
    key         uuid     NOT NULL,
    ingest_id   uuid,              -- as told; absent for throttled
    outcome     smallint NOT NULL,
    slot        smallint NOT NULL,
    PRIMARY KEY (key, slot)
) PARTITION BY LIST (slot);
CREATE TABLE marker_0 PARTITION OF marker FOR VALUES IN (0);
CREATE TABLE marker_1 PARTITION OF marker FOR VALUES IN (1);
CREATE TABLE marker_2 PARTITION OF marker FOR VALUES IN (2);

-- The last acceptance of each unique key. `key` is a hash over organisation,
-- definition and the values at `unique_by`.
CREATE TABLE unique_window (
    accepted_at timestamptz NOT NULL,
    key         uuid        NOT NULL,
    ingest_id   uuid        NOT NULL,
    slot        smallint    NOT NULL,
    PRIMARY KEY (key, slot)
) PARTITION BY LIST (slot);
CREATE TABLE unique_window_0 PARTITION OF unique_window FOR VALUES IN (0) WITH (fillfactor = 90);
CREATE TABLE unique_window_1 PARTITION OF unique_window FOR VALUES IN (1) WITH (fillfactor = 90);
CREATE TABLE unique_window_2 PARTITION OF unique_window FOR VALUES IN (2) WITH (fillfactor = 90);

-- Acceptances in the current throttle window. One row per organisation,
-- definition and period, updated in place: room on the page keeps it there.
CREATE TABLE throttle_counter (
    key          uuid        PRIMARY KEY,
    window_start timestamptz NOT NULL,
    used         bigint      NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- Replicas of the ingest service, by their heartbeat.
CREATE TABLE instance (
    id        uuid        PRIMARY KEY,
    date_seen timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Accepted observations on their way to the results service: one row per
-- organisation and commit, deleted when they are recorded. `owner` is the
-- instance that emits it; absent: anybody's. A row that can't be emitted as it
-- is has the reason in `set_aside`; an operator gives it back by setting both
-- to NULL.
CREATE TABLE outbox (
    id           uuid        PRIMARY KEY,
    organisation text        COLLATE "C" NOT NULL,
    owner        uuid,
    format       smallint    NOT NULL,
    results      integer     NOT NULL,
    traceparent  text        NOT NULL,
    set_aside    text,
    date_created timestamptz NOT NULL DEFAULT clock_timestamp(),
    payload      bytea       NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000,
    toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 20000
);
-- The payload is compressed before it gets here.
ALTER TABLE outbox ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE INDEX outbox_owner ON outbox (owner, id);

-- Moves on to the next slot when the current one has been filled for half the
-- retention, emptying it first. Gates hold the advisory lock shared, so none is
-- under way meanwhile. Returns whether it moved.
CREATE FUNCTION gate_roll_over(lock_key bigint, retention interval) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    next_slot smallint;
BEGIN
    PERFORM pg_advisory_xact_lock(lock_key);
    SELECT (current + 1) % 3 INTO next_slot
    FROM gate_slot WHERE since <= clock_timestamp() - retention / 2
    FOR UPDATE;
    IF next_slot IS NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('TRUNCATE %I, %I', 'marker_' || next_slot, 'unique_window_' || next_slot);
    DELETE FROM throttle_counter WHERE window_start < clock_timestamp() - 2 * retention;
    UPDATE gate_slot SET current = next_slot, since = clock_timestamp();
    RETURN true;
END
$$;
