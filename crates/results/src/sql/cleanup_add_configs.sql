-- Storage configs that the clean-up does not know of yet; returns the moment. A scan
-- of two tables that have few rows per organisation.
WITH added AS (
    INSERT INTO cleanup_progress (organisation, storage_config)
    SELECT organisation, id FROM storage_config
    ON CONFLICT DO NOTHING
)
SELECT clock_timestamp() AS now
