"""Types for `names.py`: its own are plain."""
