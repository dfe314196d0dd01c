-- Whose rows this session sees: row-level security compares every row's
-- organisation with it. Holds until it is set again, which every use of the session
-- begins with. Sent together with what follows: no round trip of its own.
SELECT set_config('sluice.organisation', $1, false)
