-- An owner that serves.

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
