-- See gate_forget_counters in the migrations: where there is something to forget it waits
-- for the gates under way, and makes all others wait. Index throttle_counter_window_start.
SELECT gate_forget_counters($1, make_interval(secs => $2), $3)
