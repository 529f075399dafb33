"""Tests of the scripts that play handlers."""
