-- Locks the revision's row until the change is committed.
UPDATE registry_revision SET revision = revision + 1 RETURNING revision
