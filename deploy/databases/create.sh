#!/bin/sh
# Makes both databases and their roles, as a superuser (psql's own variables say where:
# PGHOST, PGUSER, ...). The passwords are in INGEST_OWNER, INGEST_LOGIN, RESULTS_OWNER
# and RESULTS_LOGIN. Run again, it makes what is missing and sets the passwords. The
# official PostgreSQL image runs this at its first start. For each service:
#   sluice_<service>_owner    owns the database; only the migrations log in as it
#   sluice_<service>_service  what the service may do; the migrations grant it
#   sluice_<service>          what the service logs in as; owns nothing
# sluice_results_tenant is what results becomes for a call of one organisation.
set -eu
: "${INGEST_OWNER:?}" "${INGEST_LOGIN:?}" "${RESULTS_OWNER:?}" "${RESULTS_LOGIN:?}"

psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "${PGUSER:-${POSTGRES_USER:-postgres}}" --dbname postgres <<'SQL'
\getenv ingest_owner INGEST_OWNER
\getenv ingest_login INGEST_LOGIN
\getenv results_owner RESULTS_OWNER
\getenv results_login RESULTS_LOGIN

-- Migrations make the first three, too, where they may.
SELECT format('CREATE ROLE %I', role)
FROM unnest(ARRAY['sluice_ingest_service', 'sluice_results_service', 'sluice_results_tenant',
                  'sluice_ingest_owner', 'sluice_ingest', 'sluice_results_owner', 'sluice_results']) AS role
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) \gexec

ALTER ROLE sluice_ingest_owner LOGIN PASSWORD :'ingest_owner';
ALTER ROLE sluice_ingest LOGIN PASSWORD :'ingest_login';
ALTER ROLE sluice_results_owner LOGIN PASSWORD :'results_owner';
ALTER ROLE sluice_results LOGIN PASSWORD :'results_login';
GRANT sluice_ingest_service TO sluice_ingest;
GRANT sluice_results_service TO sluice_results;
GRANT sluice_results_tenant TO sluice_results_service;

SELECT format('CREATE DATABASE %I OWNER %I ENCODING ''UTF8'' TEMPLATE template0', name, name || '_owner')
FROM unnest(ARRAY['sluice_ingest', 'sluice_results']) AS name
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name) \gexec

-- Neither service may so much as look at the other's database.
REVOKE ALL ON DATABASE sluice_ingest, sluice_results FROM PUBLIC;
GRANT CONNECT ON DATABASE sluice_ingest TO sluice_ingest_service;
GRANT CONNECT ON DATABASE sluice_results TO sluice_results_service;
SQL
