-- See drop_empty_weeks in the migrations (V6): a week that ended more than 366 days ago.
-- Locks a table for the moment it takes to drop an empty partition of it, or not at all.
SELECT drop_empty_weeks(now() - interval '366 days') AS dropped
