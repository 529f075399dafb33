"""Tests of the names that an older supervisor starts processes by."""
