"""The keys of TLS."""
