"""What a worker tells an operator about its connections."""
