"""Helpers of the feeder's tests."""
