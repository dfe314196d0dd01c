-- See drop_empty_weeks in the migrations: weeks that ended more than 366 days ago.
SELECT drop_empty_weeks(now() - interval '366 days') AS dropped
