"""The control socket's language and both ways to it: for the supervisor and for its clients."""
