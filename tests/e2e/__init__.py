"""Tests of the whole daemon, from the outside: real processes, real clients, a real Prometheus."""
