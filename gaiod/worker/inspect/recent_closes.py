"""What a worker writes down of each connection that closes, for `gaiod explain`: others read it (`stats/closes.py`)."""

from typing import Any

from gaiod.core.connection import Conn
from gaiod.core.sockets import name_of_peer
from gaiod.handler.termination import Termination
from gaiod.stats.closes import CLOSINGS_MAX, Writer


class RecentCloses:
    """Remembers the last connections of a worker that closed.

    Args:
        memory: where: of `closes.FILE_BYTES`, zeros.
        slot: of the worker.
        entries: how many are remembered.
    """

    def __init__(self, memory: Any, slot: int = 0, entries: int = CLOSINGS_MAX) -> None:
        self._writer = Writer(memory, slot, entries)

    def add(
        self,
        parts: tuple[int, int],
        listener: str,
        conn: Conn,
        name: bytes | None,
        termination: Termination,
        *,
        server: str | None,
        now_s: float,
    ) -> None:
        """Remember one.

        Args:
            parts: of its name (`Names.parts_of`).
            listener: its listener's name.
            conn: it.
            name: its peer's address as the kernel has it.
            termination: why it closed.
            server: which it was with.
            now_s: when, in `time.monotonic()`.
        """
        header = conn.proxy_header
        if header is not None and header.source is not None:
            name = name_of_peer(header.source)
        self._writer.add(
            parts,
            (conn.opened_s, now_s),
            (conn.bytes_received, conn.bytes_sent),
            listener=listener,
            server=server,
            ending=termination.key,
            peer=name or b"",
        )
