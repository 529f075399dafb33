"""Who is at the other end of a unix socket."""

import socket
import struct
import sys


def peer_uid(fd: int) -> int | None:
    """Return the user who connected a unix socket; None where the system does not tell."""
    sock = socket.socket(fileno=fd)
    try:
        if sys.platform == "linux":
            _, uid, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        else:
            # struct xucred of macOS and FreeBSD: cr_version, cr_uid, groups; SOL_LOCAL is 0, LOCAL_PEERCRED 1.
            _, uid = struct.unpack_from("II", sock.getsockopt(0, 1, 76))
    except (OSError, struct.error):
        return None
    finally:
        sock.detach()
    return int(uid)
