"""The log of every process: how lines look, how many there may be, and where they go."""
