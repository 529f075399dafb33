"""Random operations on real sockets, whose outcome does not depend on timing: one log per seed."""
