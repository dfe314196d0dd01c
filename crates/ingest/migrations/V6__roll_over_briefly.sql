-- Moving on waits for readers of the slot that it empties (a backup, say) for a moment
-- only, since all gates wait meanwhile. It is tried again in a minute.
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
    PERFORM set_config('lock_timeout', '50ms', true);
    EXECUTE format('TRUNCATE %I, %I', 'marker_' || next_slot, 'unique_window_' || next_slot);
    UPDATE gate_slot SET current = next_slot, since = clock_timestamp();
    RETURN true;
END
$$;

DO $$
BEGIN
    -- Replaced, it has the caller's rights again.
    EXECUTE format('ALTER FUNCTION gate_roll_over(bigint, interval) SECURITY DEFINER SET search_path = %I, pg_temp',
                   current_schema());
END
$$;
