-- Organisations that now have results in the built-in `db`. Primary key.
INSERT INTO cleanup_progress (organisation, storage_config)
SELECT organisation, '00000000-0000-0000-0000-000000000000'::uuid FROM unnest($1::text[]) AS given(organisation)
ON CONFLICT DO NOTHING
