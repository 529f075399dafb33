"""Operations: what can be asked of a watcher. What came of one is in `results.py`."""

from enum import IntEnum


class OpType(IntEnum):
    """What an operation does."""

    READ = 0
    WRITE = 1
    ACCEPT = 2
    CONNECT = 3
    RELAY = 4
    HANDSHAKE = 5
    TIMER = 6
    POST = 7
    CLOSE = 8
    """Not submitted: the report of a watcher with `report_closes` that a connection closed. Its buffer is the peer's
    address as the kernel has it (`sockets.peer_of_name`)."""
    HANGUP = 9
    """Not submitted: the report of a watcher with `report_hangups` that a peer is gone while no read of the connection
    is pending that would tell. Its error says how, its size how many bytes of the peer's can still be read."""


READ, WRITE, ACCEPT, CONNECT, RELAY, HANDSHAKE, TIMER, POST, CLOSED, HANGUP = range(10)
"""`OpResult.kind`: OpType as plain numbers, which compile to C."""

SHUTDOWN, FINISH, FREE, RESET, CANCEL, AFFINITY, STOP, PAUSE, FLUSH = range(10, 19)
"""Kinds of requests, which go the same ways as operations but have no completion."""

UNSEEN, SEEN, TOLD = range(3)
"""`Conn.hung`: what is known of its peer's hang-up, and whether somebody was told."""

OPERATION_TYPES = list(OpType)
