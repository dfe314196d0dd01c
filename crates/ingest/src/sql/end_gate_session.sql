-- Waits for the end of what the session does, and lets it begin nothing more. Primary key.
DELETE FROM gate_session WHERE id = $1
