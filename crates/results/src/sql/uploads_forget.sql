-- Ids that were used, after a day. Index upload_left.
DELETE FROM upload WHERE state = 4 AND state <> 2 AND date_touched < clock_timestamp() - interval '1 day'
