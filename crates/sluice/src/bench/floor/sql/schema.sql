-- The floor's tables: what Sluice keeps, without what only services need. Indexes
-- and the settings of autovacuum are those of Sluice's own migrations.

CREATE TABLE marker (
    fingerprint bigint   NOT NULL,
    key         uuid     NOT NULL PRIMARY KEY,
    ingest_id   uuid     NOT NULL,
    outcome     smallint NOT NULL
);

CREATE TABLE unique_window (
    accepted_at timestamptz NOT NULL,
    key         uuid        NOT NULL PRIMARY KEY,
    ingest_id   uuid        NOT NULL
) WITH (fillfactor = 90);

-- One row per observation. Each mover walks one lane.
CREATE TABLE outbox (
    seq          bigint   GENERATED ALWAYS AS IDENTITY,
    lane         smallint NOT NULL,
    id           uuid     NOT NULL,
    organisation text     COLLATE "C" NOT NULL,
    definition   text     COLLATE "C" NOT NULL,
    poll         text     COLLATE "C" NOT NULL,
    data         bytea    NOT NULL,
    PRIMARY KEY (lane, seq)
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_insert_threshold = -1, autovacuum_vacuum_cost_delay = 0
);

CREATE TABLE result (
    date_created timestamptz NOT NULL,
    size         bigint      NOT NULL,
    id           uuid        NOT NULL,
    checksum     uuid        NOT NULL,
    organisation text COLLATE "C" NOT NULL,
    definition   text COLLATE "C" NOT NULL,
    poll         text COLLATE "C" NOT NULL,
    task         text COLLATE "C" NOT NULL,
    identifier   text COLLATE "C" NOT NULL,
    type         text COLLATE "C" NOT NULL,
    data         bytea       NOT NULL
);
CREATE INDEX result_by_date ON result (organisation, date_created, id);
CREATE INDEX result_by_poll ON result (organisation, poll, date_created, id);
ALTER TABLE result ADD PRIMARY KEY (organisation, id);

CREATE TABLE available (
    date_created timestamptz NOT NULL,
    id           uuid        NOT NULL,
    organisation text COLLATE "C" NOT NULL,
    PRIMARY KEY (organisation, date_created, id)
) WITH (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_insert_threshold = -1,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.5
);

CREATE TABLE consumed (
    date_consumed timestamptz NOT NULL,
    id            uuid        NOT NULL,
    organisation  text COLLATE "C" NOT NULL,
    PRIMARY KEY (organisation, id)
);
