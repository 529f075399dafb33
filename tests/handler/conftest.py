"""Fixtures of the tests of handlers."""

from worker.conftest import serve

__all__ = ["serve"]
