"""Hooks that block their worker's loop: found, counted, and logged with their stack."""
