"""The keys of a listener that say who may come in, and how much of it."""
