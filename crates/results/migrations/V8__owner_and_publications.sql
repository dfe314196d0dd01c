-- An owner that serves, and tables that are published.

-- Who migrates may serve, too, and then becomes the tenants' role for their calls. It is made
-- a member by a row of its own, whatever it is already: to be a member is not enough. Since
-- PostgreSQL 16 who makes a role is one at once, but may only administer it, and not become
-- it. A superuser needs no row.
DO $$
BEGIN
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('GRANT sluice_results_tenant TO %I', current_user);
    END IF;
EXCEPTION
    WHEN unique_violation THEN NULL;
    -- An owner that does not serve has no need of it.
    WHEN insufficient_privilege THEN NULL;
END
$$;

-- `consumed` has no key. Without a replica identity no row can be deleted as soon as the
-- table is in any publication: of an upgrade by replication, or whatever else follows
-- changes. Each partition has its own; the whole table's counts where changes are published
-- as its. It is locked first, as readers do, and no week is made beside this.
SET LOCAL lock_timeout = '1s';
ALTER TABLE consumed REPLICA IDENTITY FULL;
DO $$
DECLARE
    partition regclass;
BEGIN
    FOR partition IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'consumed'::regclass LOOP
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', partition);
    END LOOP;
END
$$;

-- As before, and with that.
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
        IF state = 'created' AND parent = 'consumed' THEN
            EXECUTE format('ALTER TABLE %I REPLICA IDENTITY FULL', partition);
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION make_week(timestamptz) SECURITY DEFINER SET search_path = %I, pg_temp',
                   current_schema());
END
$$;
