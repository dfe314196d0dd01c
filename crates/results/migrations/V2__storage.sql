-- Storage beside the built-in `db`: where an organisation's data is kept, the
-- files on their way there, and the clean-up.

-- Where data is kept. Never deleted: what it keeps stays readable.
CREATE TABLE storage_config (
    date_created        timestamptz NOT NULL,
    -- When it was probed last.
    date_probed         timestamptz,
    id                  uuid        NOT NULL,
    -- Counts the changes, so that replicas know what they have opened.
    revision            bigint      NOT NULL DEFAULT 1,
    retention_seconds   bigint      NOT NULL, -- 0: for ever
    signed_urls_seconds bigint      NOT NULL,
    -- 1 NEW, 2 VALID, 3 INVALID, 4 DEACTIVATED.
    state               smallint    NOT NULL,
    signed_urls_enabled boolean     NOT NULL,
    managed             boolean     NOT NULL,
    organisation        text COLLATE "C" NOT NULL,
    url                 text        NOT NULL,
    state_details       text        NOT NULL DEFAULT '',
    -- The key that encrypts the credentials, and what it made of them. Null:
    -- there are none.
    credentials_key     text,
    credentials         bytea,
    PRIMARY KEY (organisation, id)
);

-- The organisation's default, if it is not the built-in `db`.
CREATE TABLE storage_default (
    organisation   text COLLATE "C" PRIMARY KEY,
    storage_config uuid NOT NULL
);

-- For how long a signed URL works, fixed with the record. Null: there is none.
ALTER TABLE result ADD COLUMN signed_urls_seconds integer;

-- A row is now made when the data is about to go, and says EXPIRED from then
-- on; `date_deleted` is set when the data is confirmed to be gone. The rows in
-- between are what the clean-up has yet to do.
ALTER TABLE expired ALTER COLUMN date_deleted DROP NOT NULL;
CREATE INDEX expired_pending ON expired (organisation, id) WHERE date_deleted IS NULL;
-- What has been EXPIRED for so long that it is forgotten.
CREATE INDEX expired_by_deletion ON expired (date_deleted);

-- A row for each object that may exist without a result: it is made before the
-- first byte is written and goes with the commit that makes the record. What is
-- left over tells the clean-up what to remove. A result may be tried at one
-- storage config and then at another, so the config is part of the key; the nil
-- id stands for the built-in `db`.
CREATE TABLE upload (
    -- Set anew while bytes flow.
    date_touched   timestamptz NOT NULL,
    -- Of one that was sealed.
    size           bigint,
    id             uuid        NOT NULL,
    storage_config uuid        NOT NULL,
    -- MD5 of one that was sealed.
    checksum       uuid,
    -- 1 open, 2 sealed, 3 discarded, 4 gone (kept for a day, so that whoever comes
    -- late with this id is refused).
    state          smallint    NOT NULL,
    organisation   text COLLATE "C" NOT NULL,
    type           text COLLATE "C" NOT NULL DEFAULT '',
    -- The provider's name for a multipart upload under way.
    multipart      text,
    PRIMARY KEY (organisation, id, storage_config)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
-- What the clean-up walks. Sealed ones wait for ingest and are not its concern.
CREATE INDEX upload_left ON upload (date_touched) WHERE state <> 2;

-- Files of storage type `db`, in chunks of 512 KiB; the last one is shorter.
CREATE TABLE file_chunk (
    id           uuid    NOT NULL,
    number       integer NOT NULL,
    organisation text COLLATE "C" NOT NULL,
    bytes        bytea   NOT NULL,
    PRIMARY KEY (organisation, id, number)
);
ALTER TABLE file_chunk ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- How far the clean-up of each storage config has come: everything it keeps up
-- to this place has expired. The nil id stands for the built-in `db`. A replica
-- works on one for as long as its lease lasts.
CREATE TABLE cleanup_progress (
    -- `date_created` and id of the last result looked at.
    date           timestamptz NOT NULL DEFAULT '-infinity',
    date_leased    timestamptz NOT NULL DEFAULT '-infinity',
    id             uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    storage_config uuid        NOT NULL,
    lease          uuid,
    organisation   text COLLATE "C" NOT NULL,
    PRIMARY KEY (organisation, storage_config)
);

-- Organisations that have results in the built-in `db`.
INSERT INTO cleanup_progress (organisation, storage_config)
SELECT DISTINCT organisation, '00000000-0000-0000-0000-000000000000'::uuid FROM result;

-- Drops the partitions of weeks that lie wholly before `moment` and are empty.
-- Returns their number. Each is locked for the moment it takes, or left for
-- another time after `lock_timeout`.
CREATE FUNCTION drop_empty_weeks(moment timestamptz) RETURNS integer
LANGUAGE plpgsql
AS $$
DECLARE
    parent    text;
    partition text;
    occupied  boolean;
    dropped   integer := 0;
BEGIN
    FOREACH parent IN ARRAY ARRAY['result', 'data_block', 'consumed', 'expired'] LOOP
        FOR partition IN
            SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = parent::regclass AND c.relname ~ '_[0-9]{8}$'
              AND to_date(right(c.relname, 8), 'YYYYMMDD') + 7 < (moment AT TIME ZONE 'UTC')::date
        LOOP
            BEGIN
                EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', partition);
                EXECUTE format('SELECT EXISTS (SELECT FROM %I)', partition) INTO occupied;
                IF NOT occupied THEN
                    EXECUTE format('DROP TABLE %I', partition);
                    dropped := dropped + 1;
                END IF;
            EXCEPTION WHEN lock_not_available THEN
                NULL;
            END;
        END LOOP;
    END LOOP;
    RETURN dropped;
END
$$;
