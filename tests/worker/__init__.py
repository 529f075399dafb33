"""The runtime's tests: handlers, listeners and workers, in this process and as processes."""
