"""Types for `taker.py`: its own are plain."""
