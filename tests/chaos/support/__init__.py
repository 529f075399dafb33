"""Helpers of these tests: a load of clients, and daemons to put it on."""
