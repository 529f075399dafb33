"""Types for `wire.py`: its own are plain."""
