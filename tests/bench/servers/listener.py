"""The listening socket of the Python servers."""

import socket

BACKLOG = 4096
"""Connections the kernel keeps until they are accepted: twice of what load.c opens before it waits for an echo."""


def open_listener(port: int = 0, *, send_buffer_bytes: int | None = None) -> socket.socket:
    """Return a listening socket on a port of 127.0.0.1, 0 for any free one, and print `listening PORT`.

    What it accepts inherits its options. reno, because bbr paces by timers: on loopback it would
    measure the pacing and not the server.
    """
    listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
    if send_buffer_bytes is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
    print(f"listening {listener.getsockname()[1]}", flush=True)
    return listener
