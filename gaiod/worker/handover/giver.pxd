"""Types for `giver.py`: its own are plain."""
