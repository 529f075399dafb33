"""Tests of what a new connection passes before a hook sees it."""
