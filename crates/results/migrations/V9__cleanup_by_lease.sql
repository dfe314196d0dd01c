-- The clean-up takes the storage config that was looked at longest ago, and then the next
-- one: without a scan of all organisations' for each.
CREATE INDEX cleanup_progress_by_lease ON cleanup_progress (date_leased);
