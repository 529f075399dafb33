"""The sockets that the supervisor opens."""
