-- Files on their way to the results service that the gate has not decided about.
-- A row is written before the first byte is sent, and deleted by the gate's
-- transaction, or by the one that gives the upload up: whichever comes first
-- decides, and both leave word of it in the outbox. `owner` is the instance
-- that relays the bytes.
CREATE TABLE file_upload (
    id           uuid        PRIMARY KEY, -- the ingest id it has if it is accepted
    organisation text        COLLATE "C" NOT NULL,
    owner        uuid        NOT NULL,
    date_created timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX file_upload_owner ON file_upload (owner, id);
