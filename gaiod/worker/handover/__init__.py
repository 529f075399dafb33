"""Handing established connections from one worker to another."""
