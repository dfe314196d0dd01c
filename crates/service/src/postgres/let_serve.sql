-- Lets the user that a service logs in as do its work. See let_serve in the
-- services' migrations. One round trip, no locks.
SELECT let_serve($1)
