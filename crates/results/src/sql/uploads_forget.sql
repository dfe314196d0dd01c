-- Ids that were used, a day before a moment, at most 5,000. Index upload_left; removed by place.
DELETE FROM upload
WHERE state = 4 AND ctid = ANY (ARRAY(
    SELECT ctid FROM upload
    WHERE state = 4 AND state <> 2 AND date_touched < $1::timestamptz - interval '1 day'
    ORDER BY date_touched
    LIMIT 5000
))
