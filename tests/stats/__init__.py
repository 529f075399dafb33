"""Tests of the shared counters."""
