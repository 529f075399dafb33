"""What the network does: the far ends, those who connect, and how many descriptors there are."""

from collections.abc import Callable
from typing import Any

from core.simulation.files import LISTENING, Sock
from core.simulation.model import Model


class Network:
    """The other side; each `do_` is a step of that name."""

    model: Model

    def _sock(self, key: int) -> Sock | None:
        sock = self.model.kernel.socks.get(key)
        return None if sock is None or sock.is_closed else sock

    def _far(self, key: int, action: Callable[..., Any], *arguments: Any) -> None:
        sock = self._sock(key)
        if sock is not None:
            self.model.kernel.act(sock, action, sock, *arguments)

    def do_send(self, key: int, size: int) -> None:
        self._far(key, Sock.far_send, size)

    def do_take(self, key: int, size: int) -> None:
        self._far(key, Sock.far_take, size)

    def do_fin(self, key: int) -> None:
        self._far(key, Sock.far_finish)

    def do_gone(self, key: int) -> None:
        self._far(key, Sock.far_close)

    def do_rst(self, key: int) -> None:
        self._far(key, Sock.far_reset)

    def do_resolve(self, key: int, is_good: bool) -> None:
        sock = self._sock(key)
        if sock is not None:
            self.model.kernel.resolve(sock, is_good)

    def do_arrive(self, listener: int, key: int) -> None:
        sock = self._sock(listener)
        if sock is not None and sock.state == LISTENING and key not in self.model.kernel.socks:
            self.model.kernel.socks[key] = client = Sock(key, 16, 16, False)
            self.model.kernel.arrive(sock, client)

    def do_refuse(self, count: int) -> None:
        """Watch no more sockets, so many times."""
        self.model.kernel.watches_refused = count

    def do_limit(self, spare: int) -> None:
        """Leave so many descriptors to be had."""
        self.model.kernel.limit = len(self.model.kernel.files) + spare
