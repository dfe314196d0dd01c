-- The server's version and settings that speed depends on.
SELECT version(), (
    SELECT string_agg(name || ' = ' || current_setting(name), ', ' ORDER BY name)
    FROM pg_settings
    WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes', 'shared_buffers', 'max_wal_size',
                   'checkpoint_timeout', 'wal_compression', 'autovacuum')
)
