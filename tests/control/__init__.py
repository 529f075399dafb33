"""Tests of the control socket's language."""
