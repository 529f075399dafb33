"""What is deployed beside the daemon: the dashboard, and the rules of Prometheus."""
