-- A transaction that holds vacuum back: it has a snapshot and a number, and stays open.
BEGIN ISOLATION LEVEL REPEATABLE READ;
CREATE TEMPORARY TABLE held ON COMMIT DROP AS SELECT pg_current_xact_id();
