-- How many rows of some owners were taken over since a moment.
SELECT count(*) FROM history_takeover WHERE at > $1 AND old_owner = ANY ($2)
