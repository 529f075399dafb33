"""What can be seen from outside: the metrics, and the HTTP endpoint that shows them."""
