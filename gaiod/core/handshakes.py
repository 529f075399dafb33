"""Handshakes: connections that begin to speak TLS.

A handshake is an operation of a connection's reading side. Until it is done the connection is not writable, so what
is written and read meanwhile waits, as behind a connect. It is work, not I/O: a step that signs takes 0.3 to 0.6 ms
(OpenSSL 3.0, ECDSA P-256), so a flood of clients must not have all of theirs in one pass.
"""

import errno
from math import inf

from gaiod.core.connection import Conn
from gaiod.core.counters import COMPLETE, FAILED, index
from gaiod.core.operations import HANDSHAKE
from gaiod.core.pending import Operations
from gaiod.core.results import OpResult
from gaiod.core.turns import Turns

EPROTO = errno.EPROTO
STEPS_DELAYED = index("handshake_steps_delayed")

STEPS_PER_PASS = 16
"""Most steps that one pass takes: some 6 ms, which everybody else waits for. The oldest first; others in the next."""


class Handshakes:
    """What a pass does for handshakes.

    It keeps nothing, and is given the operations with each call, as `Relays` is.
    """

    def step(self, operations: Operations, turns: Turns) -> None:
        """Take a step of each handshake that is ready, as many as a pass may."""
        if turns.count > STEPS_PER_PASS:
            operations.counters[STEPS_DELAYED] += turns.count - STEPS_PER_PASS
        for i in range(turns.count):
            conn = turns.items[i]
            if i >= STEPS_PER_PASS:
                conn.reading = True  # it stands in line for the next pass, before those that become ready now
                operations.reads.add(conn)
                continue
            operation = conn.read_head
            if operation is not None and operation.kind == HANDSHAKE and conn.secure is not None:
                self._take_step(operations, conn, operation, conn.secure.handshake(conn.fd))
            operations._schedule_read(conn)

    def note_room(self, operations: Operations, conn: Conn) -> None:
        """Go on with a handshake of which the kernel had not taken all, and takes more now."""
        if conn.secure.held:
            conn.readable = True
            operations._schedule_read(conn)

    def _take_step(self, operations: Operations, conn: Conn, operation: OpResult, outcome: int) -> None:
        """Take the outcome of one step: 1, it is done; 0, it goes on; else `-errno`."""
        session = conn.secure
        if session.drained == 2 or (session.drained == 1 and not conn.broken):
            conn.readable = False
        if outcome == 0:
            return
        conn.active_s = operations.now_s
        operations._pop_read(conn)
        if outcome > 0:
            conn.writable = True
            conn.stall_s = 0.0
            operations._finish(operation, None, COMPLETE)
            if operation.silent:
                operations._end_connect(conn)
            operations._flush_later(conn)
            operations._schedule_write(conn)
            return
        if outcome != -EPROTO:
            operations._note_fault(conn, -outcome, True)
        conn.failure = operations._error_of(conn, -outcome)
        operations._finish(operation, conn.failure, FAILED)
        operations._end_queue(conn, True, -1, inf, conn.failure)
        operations._end_queue(conn, False, -1, inf, conn.failure)
