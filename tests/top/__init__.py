"""Tests of `gaiod top`."""
