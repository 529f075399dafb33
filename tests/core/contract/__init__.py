"""The watcher's contract, one file per point of it."""
