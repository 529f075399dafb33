"""The worker process: listeners, and the connections that they serve."""
