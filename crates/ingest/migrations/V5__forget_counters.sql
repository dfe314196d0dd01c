-- Old throttle counters go apart from old markers and windows: however many there are,
-- they keep no gate waiting for long, and no roll-over from moving.

-- By age. A counter's update changes an indexed column only where a new window begins,
-- once in a period: the others stay on their page as before.
CREATE INDEX throttle_counter_window_start ON throttle_counter (window_start);

-- As before, but that it leaves counters alone.
CREATE OR REPLACE FUNCTION gate_roll_over(lock_key bigint, retention interval) RETURNS boolean
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
    UPDATE gate_slot SET current = next_slot, since = clock_timestamp();
    RETURN true;
END
$$;

-- Removes up to `at_most` counters whose window began before twice the retention, the
-- oldest first, and returns how many: to be called, each time in a transaction of its own,
-- until it is fewer. If there are none it takes no lock.
--
-- No window is longer than the retention, so what is removed says nothing any more. Still
-- no gate may be under way (they hold the lock shared): one that has found its counter
-- there, but has not locked it yet, would count from nothing beside the next one that
-- makes it anew, and one of them would be lost.
CREATE FUNCTION gate_forget_counters(lock_key bigint, retention interval, at_most bigint) RETURNS bigint
-- By the index, whatever is known of the table.
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    -- Read once: a clock that goes on is nothing to look up by.
    oldest  timestamptz := clock_timestamp() - 2 * retention;
    removed bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM throttle_counter WHERE window_start < oldest) THEN
        RETURN 0;
    END IF;
    PERFORM pg_advisory_xact_lock(lock_key);
    DELETE FROM throttle_counter WHERE key = ANY (ARRAY(
        SELECT key FROM throttle_counter WHERE window_start < oldest ORDER BY window_start LIMIT at_most
    ));
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END
$$;

DO $$
BEGIN
    -- Replaced, it has the caller's rights again.
    EXECUTE format('ALTER FUNCTION gate_roll_over(bigint, interval) SECURITY DEFINER SET search_path = %I, pg_temp',
                   current_schema());
END
$$;
REVOKE EXECUTE ON FUNCTION gate_forget_counters(bigint, interval, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION gate_forget_counters(bigint, interval, bigint) TO sluice_ingest_service;
