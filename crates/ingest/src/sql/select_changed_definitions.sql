-- Definitions changed after a revision, tombstones included, and the revision
-- of this very snapshot. One statement, so that both are of one moment. Before all
-- revisions, -1, what is deleted is left out. Index definition_revision.
SELECT r.revision AS now_revision, d.*
FROM registry_revision r
LEFT JOIN definition d ON d.revision > $1 AND ($1 >= 0 OR NOT d.deleted)
