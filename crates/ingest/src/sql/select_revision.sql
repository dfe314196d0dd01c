-- The definitions' revision. One row.
SELECT revision FROM registry_revision
