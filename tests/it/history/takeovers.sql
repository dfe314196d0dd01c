-- Writes down whose outbox rows another instance took over from an owner that had not given
-- them away.
CREATE TABLE history_takeover (
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    row_id    uuid        NOT NULL,
    old_owner uuid        NOT NULL
);

CREATE FUNCTION history_takeover() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO history_takeover (row_id, old_owner) VALUES (OLD.id, OLD.owner);
    RETURN NULL;
END
$$;
CREATE TRIGGER history_takeover AFTER UPDATE ON outbox FOR EACH ROW
WHEN (OLD.owner IS NOT NULL AND NEW.owner IS NOT NULL AND OLD.owner <> NEW.owner)
EXECUTE FUNCTION history_takeover();
