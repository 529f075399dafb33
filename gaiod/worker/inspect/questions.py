"""What a worker answers when its supervisor asks on behalf of an operator."""

import time
from collections.abc import Callable, Sequence
from heapq import nlargest
from typing import Any

from gaiod.core.connection import Conn
from gaiod.core.inspect import buffered_bytes, waiting_s
from gaiod.worker.inspect.connection_facts import ConnectionFacts, facts_of
from gaiod.worker.inspect.tcp_info import kernel_of
from gaiod.worker.inspect.traffic import Traffic
from gaiod.worker.ledger import phase_of, server_of
from gaiod.worker.listener import Listener
from gaiod.worker.names import Names

ORDERS: dict[str, Callable[[Conn, float, Traffic], float]] = {
    "age": lambda conn, now_s, traffic: now_s - conn.opened_s,
    "bytes": lambda conn, now_s, traffic: conn.bytes_received + conn.bytes_sent,
    "stalled": lambda conn, now_s, traffic: waiting_s(conn, now_s),
    "buffered": lambda conn, now_s, traffic: buffered_bytes(conn),
    "traffic": lambda conn, now_s, traffic: traffic.rate(conn, now_s) or 0.0,
}
"""By what connections are sorted, the largest first."""


class Questions:
    """Looks at the connections of a worker, and ends one."""

    def __init__(self, listeners: Sequence[Listener], names: Names) -> None:
        self._listeners = listeners
        self._names = names
        self._facts = ConnectionFacts(listeners, names)
        self._traffic = Traffic()

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one question."""
        match question["verb"]:
            case "connections":
                return self._connections(question["listener"], question["sort"], question["limit"])
            case "kill":
                return {"found": self._kill(question["connection"])}
            case "explain":
                return self._facts.explain(question["connection"])
            case verb:
                raise ValueError(f"{verb}: no such question")

    def tidy(self) -> None:
        """Forget what was kept for questions that nobody asks any more."""
        self._traffic.forget(time.monotonic())

    def _connections(self, name: str | None, sort: str, limit: int) -> dict[str, Any]:
        now_s = time.monotonic()
        found = [
            (listener, conn)
            for listener in self._listeners
            if name is None or listener.settings.name == name
            for conn in listener.clients()
        ]
        if sort == "traffic" or self._traffic.is_watched:
            self._traffic.look((conn for _, conn in found), now_s)
        order = ORDERS[sort]
        first = nlargest(limit, found, key=lambda each: order(each[1], now_s, self._traffic))
        return {"total": len(found), "connections": [self._row(*each, now_s) for each in first]}

    def _row(self, listener: Listener, conn: Conn, now_s: float) -> dict[str, Any]:
        rate = self._traffic.rate(conn, now_s)
        return {
            **facts_of(conn, self._names, now_s),
            "listener": listener.settings.name,
            "phase": phase_of(listener.handler, conn),
            "server": server_of(listener.handler, conn),
            "waiting_s": round(waiting_s(conn, now_s), 3),
            "buffered_bytes": buffered_bytes(conn),
            "bytes_per_s": None if rate is None else round(rate, 1),
            "kernel": kernel_of(conn.fileno()),
        }

    def _kill(self, name: str) -> bool:
        serial = self._names.serial_of(name)
        for listener in self._listeners if serial is not None else ():
            for conn in listener.clients():
                if conn.serial == serial:
                    listener.end(conn, "admin", abort=True)
                    return True
        return False
