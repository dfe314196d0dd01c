-- Says that a session of this instance is going to pass the gate; it may have been said
-- by a try at opening it that failed. The lane's last one can be forgotten, unless it is
-- still at the gate. Primary key.
WITH last AS (
    DELETE FROM gate_session
    WHERE id = (SELECT id FROM gate_session WHERE id = $3 FOR UPDATE SKIP LOCKED)
)
INSERT INTO gate_session (id, instance) VALUES ($1, $2)
ON CONFLICT (id) DO NOTHING
