-- See gate_roll_over in the migrations. Waits for the gates under way.
SELECT gate_roll_over($1, make_interval(secs => $2))
