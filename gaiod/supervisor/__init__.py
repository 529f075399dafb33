"""The supervisor: it owns the listeners, starts the workers, reads what they count, and stops them."""
