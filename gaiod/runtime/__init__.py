"""What runs inside a worker: handlers, listeners, plugin loading and the statistics slots."""
