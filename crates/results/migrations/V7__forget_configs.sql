-- A storage config that is DEACTIVATED and keeps nothing is forgotten.

-- When the clean-up first saw it DEACTIVATED. First: should somebody hold this table, nothing
-- else has been locked yet.
ALTER TABLE cleanup_progress ADD COLUMN date_deactivated timestamptz;

-- Nothing is kept in a storage config that is not there: whoever chose it before it was
-- forgotten tries again, and chooses anew. (A foreign key would lock the storage config's row
-- at each commit, and knows nothing of the nil id.)
CREATE FUNCTION refuse_forgotten_config() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM storage_config WHERE organisation = NEW.organisation AND id = NEW.storage_config
    ) THEN
        RAISE serialization_failure USING MESSAGE = 'the storage config was forgotten';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER refuse_forgotten_config BEFORE INSERT ON batch
FOR EACH ROW WHEN (NEW.storage_config > '00000000-0000-0000-0000-000000000000')
EXECUTE FUNCTION refuse_forgotten_config();
CREATE TRIGGER refuse_forgotten_config BEFORE INSERT ON upload
FOR EACH ROW WHEN (NEW.storage_config > '00000000-0000-0000-0000-000000000000')
EXECUTE FUNCTION refuse_forgotten_config();

-- Whether a storage config keeps any batch. Those of the built-in `db` have no part in it. A
-- statement that does not say `storage_config > nil` can't use it, so it changes no other plan.
-- While it is made nothing is recorded.
CREATE INDEX batch_by_config ON batch (organisation, storage_config)
WHERE storage_config > '00000000-0000-0000-0000-000000000000';
