"""Tests of the every process."""
