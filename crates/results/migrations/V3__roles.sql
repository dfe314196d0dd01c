-- Who may do what. Tables belong to whoever migrates. The service logs in as a
-- member of `sluice_results`, which owns nothing; what it does for one tenant it
-- does as `sluice_results_tenant`, which sees the rows of the organisation that
-- the session's setting `sluice.organisation` names, and without it none.

DO $$
DECLARE
    wanted text;
BEGIN
    -- Roles belong to the whole server: another database may have made them, or
    -- be about to.
    FOREACH wanted IN ARRAY ARRAY['sluice_results', 'sluice_results_tenant'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN NULL;
                WHEN insufficient_privilege THEN
                    RAISE EXCEPTION 'the role % is missing, and % may not create it', wanted, current_user
                        USING HINT = 'As a superuser: CREATE ROLE sluice_results NOLOGIN; '
                            'CREATE ROLE sluice_results_tenant NOLOGIN; '
                            'GRANT sluice_results_tenant TO sluice_results;';
            END;
        END IF;
    END LOOP;
    -- What serves may serve tenants; so may the owner, where there is no other user.
    FOREACH wanted IN ARRAY ARRAY['sluice_results', current_user::text] LOOP
        IF NOT pg_has_role(wanted, 'sluice_results_tenant', 'MEMBER') THEN
            BEGIN
                EXECUTE format('GRANT sluice_results_tenant TO %I', wanted);
            EXCEPTION WHEN unique_violation THEN NULL;
            END;
        END IF;
    END LOOP;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO sluice_results, sluice_results_tenant', current_schema());
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %I TO sluice_results',
                   current_schema());
    EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON %I.refinery_schema_history FROM sluice_results',
                   current_schema());
END
$$;

-- The tenant's own: what the calls of consumers and of storage administrators need.
GRANT SELECT ON result, data_block, available, consumed, expired, upload, file_chunk,
    storage_config, storage_default TO sluice_results_tenant;
-- Acknowledging moves a row.
GRANT DELETE ON available TO sluice_results_tenant;
GRANT INSERT ON consumed TO sluice_results_tenant;
GRANT INSERT, UPDATE ON storage_config TO sluice_results_tenant;
GRANT INSERT, UPDATE, DELETE ON storage_default TO sluice_results_tenant;

-- The wall. Partitions are reached through their parents only: nobody but the owner
-- has a right to them. The comparison is of an expression and not of the column, so
-- that the planner never reads by it, all that an organisation has, what it would
-- read by the whole key otherwise.
DO $$
DECLARE
    walled text;
BEGIN
    FOREACH walled IN ARRAY ARRAY['result', 'data_block', 'available', 'consumed', 'expired', 'upload',
                                  'file_chunk', 'storage_config', 'storage_default', 'cleanup_progress'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', walled);
        EXECUTE format('CREATE POLICY service ON %I TO sluice_results USING (true)', walled);
        EXECUTE format('CREATE POLICY tenant ON %I TO sluice_results_tenant '
                       'USING (organisation || '''' = current_setting(''sluice.organisation'', true))', walled);
    END LOOP;
    -- What the service makes and drops while it runs it makes as the owner, by these
    -- two functions and in no other way.
    EXECUTE format('ALTER FUNCTION make_week(timestamptz) SECURITY DEFINER SET search_path = %I, pg_temp',
                   current_schema());
    EXECUTE format('ALTER FUNCTION drop_empty_weeks(timestamptz) SECURITY DEFINER SET search_path = %I, pg_temp',
                   current_schema());
    -- Rights on partitions were never needed, but for those of all tables above.
    FOR walled IN SELECT c.relname FROM pg_class c
                  WHERE c.relispartition AND c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace LOOP
        EXECUTE format('REVOKE ALL ON %I FROM sluice_results', walled);
    END LOOP;
END
$$;
REVOKE EXECUTE ON FUNCTION make_week(timestamptz), drop_empty_weeks(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION make_week(timestamptz), drop_empty_weeks(timestamptz) TO sluice_results;

-- Lets a login role serve.
CREATE FUNCTION let_serve(login name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_has_role(login, 'sluice_results', 'MEMBER') THEN
        EXECUTE format('GRANT sluice_results TO %I', login);
    END IF;
END
$$;
REVOKE EXECUTE ON FUNCTION let_serve(name) FROM PUBLIC;
