"""What the daemon and its host tell each other: systemd, privileges, process 1, limits."""
