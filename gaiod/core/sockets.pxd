"""Types for `sockets.py`."""

cpdef tuple resolve_numeric(object address)
cpdef double check_deadline(object deadline) except? -1.0
