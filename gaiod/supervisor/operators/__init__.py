"""What operators ask over the control socket, answered."""
