-- Checkpoints as often as the server allows. Takes effect when it reads its settings.
ALTER SYSTEM SET checkpoint_timeout = '30s'
