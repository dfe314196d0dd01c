-- Forgets a DEACTIVATED storage config ($2) that keeps nothing: no batch, EXPIRED ones included,
-- whose records tell its URL, and no upload that may have left something. Not before the
-- clean-up saw it DEACTIVATED $4 seconds ago: whoever chose it before has recorded there, or
-- given up, long since. Only by who has its lease ($3). Returns whether it is gone now.
-- Primary keys, index batch_by_config, and the organisation's part of `upload`.
WITH seen AS (
    UPDATE cleanup_progress SET date_deactivated = coalesce(date_deactivated, clock_timestamp())
    WHERE organisation = $1 AND storage_config = $2 AND lease = $3
    RETURNING date_deactivated
)
DELETE FROM storage_config
WHERE organisation = $1 AND id = $2 AND state = 4
  AND EXISTS (SELECT FROM seen WHERE date_deactivated <= clock_timestamp() - make_interval(secs => $4))
  AND NOT EXISTS (
      SELECT FROM batch
      WHERE organisation = $1 AND storage_config = $2 AND storage_config > '00000000-0000-0000-0000-000000000000'
  )
  AND NOT EXISTS (SELECT FROM upload WHERE organisation = $1 AND storage_config = $2 AND state < 4)
RETURNING id
