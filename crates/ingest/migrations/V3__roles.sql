-- Who may do what. Tables belong to whoever migrates. The service logs in as a
-- member of `sluice_ingest`, which owns nothing. Gates merge many organisations'
-- observations into one transaction, so there is no row-level security here.

DO $$
BEGIN
    -- Roles belong to the whole server: another database may have made it, or be
    -- about to.
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'sluice_ingest') THEN
        BEGIN
            CREATE ROLE sluice_ingest NOLOGIN;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'the role sluice_ingest is missing, and % may not create it', current_user
                    USING HINT = 'As a superuser: CREATE ROLE sluice_ingest NOLOGIN;';
        END;
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO sluice_ingest', current_schema());
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %I TO sluice_ingest',
                   current_schema());
    EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON %I.refinery_schema_history FROM sluice_ingest',
                   current_schema());
    -- The one thing that needs the owner's rights: emptying a slot.
    EXECUTE format('ALTER FUNCTION gate_roll_over(bigint, interval) SECURITY DEFINER SET search_path = %I, pg_temp',
                   current_schema());
END
$$;
REVOKE EXECUTE ON FUNCTION gate_roll_over(bigint, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION gate_roll_over(bigint, interval) TO sluice_ingest;

-- Lets a login role serve.
CREATE FUNCTION let_serve(login name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_has_role(login, 'sluice_ingest', 'MEMBER') THEN
        EXECUTE format('GRANT sluice_ingest TO %I', login);
    END IF;
END
$$;
REVOKE EXECUTE ON FUNCTION let_serve(name) FROM PUBLIC;
