-- Empty weeks are dropped in a way that hardly anybody notices.

-- Drops one partition of a week that lies wholly before `moment` and is empty. Returns how
-- many it dropped: to be called, each time in a transaction of its own, until it is none.
--
-- What is not empty is looked at, and never locked. To drop a partition its table is locked
-- as well (and the DEFAULT partition), so all who record or read wait meanwhile, and while
-- somebody is in the way, too: that is not waited for long, but left for another time. The
-- table is locked first, as everybody does it. The advisory lock (of make_weeks.sql) lets one
-- replica at a time do it.
CREATE OR REPLACE FUNCTION drop_empty_weeks(moment timestamptz) RETURNS integer
LANGUAGE plpgsql
AS $$
DECLARE
    parent    text;
    partition text;
    occupied  boolean;
BEGIN
    IF NOT pg_try_advisory_xact_lock(x'7765656B73'::bigint) THEN
        RETURN 0;
    END IF;
    FOREACH parent IN ARRAY ARRAY['result', 'data_block', 'consumed', 'expired'] LOOP
        FOR partition IN
            SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = parent::regclass AND c.relname ~ '_[0-9]{8}$'
              AND to_date(right(c.relname, 8), 'YYYYMMDD') + 7 < (moment AT TIME ZONE 'UTC')::date
            ORDER BY c.relname
        LOOP
            EXECUTE format('SELECT EXISTS (SELECT FROM %I)', partition) INTO occupied;
            CONTINUE WHEN occupied;
            EXECUTE format('LOCK TABLE ONLY %I IN ACCESS EXCLUSIVE MODE', parent);
            EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', partition);
            -- Somebody may have come before the lock.
            EXECUTE format('SELECT EXISTS (SELECT FROM %I)', partition) INTO occupied;
            IF occupied THEN
                RETURN 0;
            END IF;
            EXECUTE format('DROP TABLE %I', partition);
            RETURN 1;
        END LOOP;
    END LOOP;
    RETURN 0;
EXCEPTION
    WHEN lock_not_available OR deadlock_detected THEN
        RETURN 0;
END
$$;
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION drop_empty_weeks(timestamptz) SECURITY DEFINER '
                   'SET search_path = %I, pg_temp SET lock_timeout = ''100ms''', current_schema());
END
$$;
