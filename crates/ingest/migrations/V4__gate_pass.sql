-- The gate in one round trip, for what nothing is known of.

-- Sessions of gates. A transaction of `gate_pass` locks its session's row; whoever wants
-- to know how it ended deletes the row: that waits for its end, and lets none begin
-- later.
CREATE TABLE gate_session (
    id       uuid PRIMARY KEY,
    instance uuid NOT NULL
);
CREATE INDEX gate_session_instance ON gate_session (instance, id);
GRANT SELECT, INSERT, UPDATE, DELETE ON gate_session TO sluice_ingest_service;

-- Who takes rows from their owner ends its sessions, whatever statement and version does
-- so: others emit and delete those rows, so that from then on a missing one proves
-- nothing. Waits for what passes the gate, and for who is asking.
CREATE FUNCTION end_gate_sessions() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    loser uuid;
BEGIN
    -- In one order, for two who take rows of the same owners.
    -- (No join: its plan is made for no rows, and kept.)
    FOR loser IN
        SELECT DISTINCT owner
        FROM (SELECT id, owner FROM owned_before EXCEPT SELECT id, owner FROM owned_now) AS lost
        ORDER BY owner
    LOOP
        DELETE FROM gate_session WHERE id = ANY (ARRAY(
            SELECT id FROM gate_session WHERE instance = loser ORDER BY id FOR UPDATE
        ));
    END LOOP;
    RETURN NULL;
END
$$;
CREATE TRIGGER end_gate_sessions AFTER UPDATE ON outbox
REFERENCING OLD TABLE AS owned_before NEW TABLE AS owned_now
FOR EACH STATEMENT EXECUTE FUNCTION end_gate_sessions();

-- Writes what was decided in the belief that nothing is known of its markers and windows,
-- or fails and leaves nothing: with unique_violation if the current slot knows one of
-- them; with SL001 if the session was ended; with SL002 if an older slot knows one, or
-- definitions changed since.
--
-- A function, since each statement of it sees what was committed before it began: the
-- lock (that of `gate_roll_over`, shared) comes before all that it protects. Keys come
-- sorted, so concurrent gates wait for each other in one direction; the moment of a
-- window's insertion is that of acceptance. Primary keys of each slot.
CREATE FUNCTION gate_pass(
    lock_key         bigint,
    of_session       uuid,
    minimum_revision bigint,
    marker_keys      uuid[],
    marker_ids       uuid[],
    fingerprints     bigint[],
    success          smallint,
    window_keys      uuid[],
    window_ids       uuid[],
    outbox_ids       uuid[],
    organisations    text[],
    owned_by         uuid,
    of_format        smallint,
    result_counts    integer[],
    traceparents     text[],
    payloads         bytea[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    now_current smallint;
    known       boolean;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(lock_key);
    PERFORM FROM gate_session WHERE id = of_session FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE SQLSTATE 'SL001' USING MESSAGE = 'the session was ended';
    END IF;
    SELECT current INTO STRICT now_current FROM gate_slot WHERE one;
    INSERT INTO marker (fingerprint, key, ingest_id, outcome, slot)
    SELECT given.fingerprint, given.key, given.ingest_id, success, now_current
    FROM unnest(marker_keys, marker_ids, fingerprints) AS given(key, ingest_id, fingerprint);
    INSERT INTO unique_window (accepted_at, key, ingest_id, slot)
    SELECT clock_timestamp(), given.key, given.ingest_id, now_current
    FROM unnest(window_keys, window_ids) AS given(key, ingest_id);
    -- The older slots by name: half of what it takes by their parents.
    IF now_current = 0 THEN
        known := EXISTS (SELECT FROM marker_1 WHERE key = ANY (marker_keys))
            OR EXISTS (SELECT FROM marker_2 WHERE key = ANY (marker_keys))
            OR EXISTS (SELECT FROM unique_window_1 WHERE key = ANY (window_keys))
            OR EXISTS (SELECT FROM unique_window_2 WHERE key = ANY (window_keys));
    ELSIF now_current = 1 THEN
        known := EXISTS (SELECT FROM marker_2 WHERE key = ANY (marker_keys))
            OR EXISTS (SELECT FROM marker_0 WHERE key = ANY (marker_keys))
            OR EXISTS (SELECT FROM unique_window_2 WHERE key = ANY (window_keys))
            OR EXISTS (SELECT FROM unique_window_0 WHERE key = ANY (window_keys));
    ELSE
        known := EXISTS (SELECT FROM marker_0 WHERE key = ANY (marker_keys))
            OR EXISTS (SELECT FROM marker_1 WHERE key = ANY (marker_keys))
            OR EXISTS (SELECT FROM unique_window_0 WHERE key = ANY (window_keys))
            OR EXISTS (SELECT FROM unique_window_1 WHERE key = ANY (window_keys));
    END IF;
    IF known OR (SELECT revision FROM registry_revision WHERE one) > minimum_revision THEN
        RAISE SQLSTATE 'SL002' USING MESSAGE = 'something is known';
    END IF;
    INSERT INTO outbox (id, organisation, owner, format, results, traceparent, payload)
    SELECT given.id, given.organisation, owned_by, of_format, given.results, given.traceparent, given.payload
    FROM unnest(outbox_ids, organisations, result_counts, traceparents, payloads)
         AS given(id, organisation, results, traceparent, payload);
END
$$;
REVOKE EXECUTE ON FUNCTION gate_pass(bigint, uuid, bigint, uuid[], uuid[], bigint[], smallint, uuid[], uuid[],
    uuid[], text[], uuid, smallint, integer[], text[], bytea[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION gate_pass(bigint, uuid, bigint, uuid[], uuid[], bigint[], smallint, uuid[], uuid[],
    uuid[], text[], uuid, smallint, integer[], text[], bytea[]) TO sluice_ingest_service;
