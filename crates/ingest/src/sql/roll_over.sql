-- See gate_roll_over in the migrations: it waits for the gates under way, and makes all
-- others wait. So it is not called before it is time; it looks once more.
SELECT CASE
    WHEN EXISTS (SELECT FROM gate_slot WHERE since <= clock_timestamp() - make_interval(secs => $2) / 2)
    THEN gate_roll_over($1, make_interval(secs => $2))
    ELSE false
END
