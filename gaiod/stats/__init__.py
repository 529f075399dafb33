"""What processes count in shared memory: which cell is where."""
