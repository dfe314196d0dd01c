-- How a transaction ended: `committed`, `aborted`, `in progress`, or NULL when
-- it is too long ago. No lock, no index.
SELECT pg_xact_status($1::text::xid8)
