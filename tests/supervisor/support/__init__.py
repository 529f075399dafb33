"""Helpers of the supervisor's tests."""
