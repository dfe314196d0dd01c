-- Writes down what each transaction of the gate wrote, in the same transaction:
-- the gate's own tables keep only the last row of each key. As their owner: the
-- user that the service logs in as may not write here.
CREATE TABLE history_log (
    n            bigserial   PRIMARY KEY,
    began        timestamptz NOT NULL DEFAULT now(),
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    xid          text        NOT NULL DEFAULT pg_current_xact_id()::text,
    kind         text        NOT NULL,
    key          uuid        NOT NULL,
    ingest_id    uuid,
    outcome      smallint,
    accepted_at  timestamptz,
    window_start timestamptz,
    used         bigint,
    organisation text,
    results      integer
);

CREATE FUNCTION history_marker() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO history_log (kind, key, ingest_id, outcome)
    VALUES ('marker', NEW.key, NEW.ingest_id, NEW.outcome);
    RETURN NULL;
END
$$;
CREATE TRIGGER history AFTER INSERT OR UPDATE ON marker FOR EACH ROW EXECUTE FUNCTION history_marker();

CREATE FUNCTION history_window() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO history_log (kind, key, ingest_id, accepted_at)
    VALUES ('window', NEW.key, NEW.ingest_id, NEW.accepted_at);
    RETURN NULL;
END
$$;
CREATE TRIGGER history AFTER INSERT OR UPDATE ON unique_window FOR EACH ROW EXECUTE FUNCTION history_window();

CREATE FUNCTION history_counter() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO history_log (kind, key, window_start, used)
    VALUES ('counter', NEW.key, NEW.window_start, NEW.used);
    RETURN NULL;
END
$$;
CREATE TRIGGER history AFTER INSERT OR UPDATE ON throttle_counter FOR EACH ROW EXECUTE FUNCTION history_counter();

-- What is handed over; who emits it later does not matter.
CREATE FUNCTION history_outbox() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO history_log (kind, key, organisation, results)
    VALUES ('outbox', NEW.id, NEW.organisation, NEW.results);
    RETURN NULL;
END
$$;
CREATE TRIGGER history AFTER INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION history_outbox();
