"""Helpers of the tests of processes that a supervisor starts."""
