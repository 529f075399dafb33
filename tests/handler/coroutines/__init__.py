"""Tests of coroutine handlers."""
