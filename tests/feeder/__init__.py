"""Tests of the feeder."""
