"""Tests of the handler API."""
