"""The supervisor's tests: sockets, slots, processes, and the life of the whole."""
