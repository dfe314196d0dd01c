-- Creates or overwrites. A definition put again after its deletion is a new one
-- with a new id. Primary key.
INSERT INTO definition AS d (id, organisation, path, description, unique_seconds, unique_by, throttle_count,
    throttle_period_seconds, json_schema, storage_config, disabled, etag, revision, date_created, date_updated)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, now(), now())
ON CONFLICT (organisation, path) DO UPDATE SET
    id = CASE WHEN d.deleted THEN excluded.id ELSE d.id END,
    description = excluded.description,
    unique_seconds = excluded.unique_seconds,
    unique_by = excluded.unique_by,
    throttle_count = excluded.throttle_count,
    throttle_period_seconds = excluded.throttle_period_seconds,
    json_schema = excluded.json_schema,
    storage_config = excluded.storage_config,
    disabled = excluded.disabled,
    etag = excluded.etag,
    revision = excluded.revision,
    deleted = false,
    date_created = CASE WHEN d.deleted THEN now() ELSE d.date_created END,
    date_updated = now()
RETURNING *
