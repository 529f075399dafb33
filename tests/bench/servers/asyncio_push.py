"""The asyncio publisher: a loop of `transport.write`, on asyncio's own loop or on uvloop (`--uvloop`)."""

import argparse
import asyncio
from typing import cast

from listener import BACKLOG, open_listener
from publication import SEND_BUFFER_BYTES, Publication, answer


class Publisher:
    """Writes what is published to every subscriber, as push_epoll.c describes it."""

    def __init__(self) -> None:
        self.subscribers: dict[asyncio.Transport, None] = {}
        self.waiting = 0
        self._publication: Publication | None = None
        self._asker: asyncio.Transport | None = None
        self._next: asyncio.Handle | None = None

    def begin(self, request: bytes, asker: asyncio.Transport) -> None:
        """Begin a publication, and say to `asker` when it is over."""
        self._publication, self._asker = Publication(request), asker
        self.go_on()

    def go_on(self) -> None:
        """Publish what is due, unless a subscriber's socket has no room."""
        self._next = None
        if self._publication is None or self.waiting:
            return
        loop = asyncio.get_running_loop()
        if self._publication.is_over:
            assert self._asker is not None
            self._asker.write(answer(self._publication.count))
            self._publication = None
        elif delay_s := self._publication.delay_s:
            self._next = loop.call_later(delay_s, self.go_on)
        else:
            self._publish(self._publication.next_burst())
            self._next = loop.call_soon(self.go_on)

    def resume(self) -> None:
        """Go on if nobody's socket is full any more."""
        if self.waiting == 0 and self._next is None:
            self.go_on()

    def _publish(self, messages: list[bytes]) -> None:
        """Write to all: joined, which takes uvloop less time than `writelines` or a `write` for each message."""
        data = messages[0] if len(messages) == 1 else b"".join(messages)
        for transport in self.subscribers:
            transport.write(data)


class Client(asyncio.Protocol):
    """A connection: a subscriber, or who asks for a publication."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not derive from it
        self._transport.set_write_buffer_limits(high=0)  # be told as soon as something waits

    def data_received(self, data: bytes) -> None:
        if data == b"subscribe\n":
            self._publisher.subscribers[self._transport] = None
        elif data == b"count\n":
            self._transport.write(answer(len(self._publisher.subscribers)))
        else:
            self._publisher.begin(data, self._transport)

    def pause_writing(self) -> None:
        self._publisher.waiting += 1

    def resume_writing(self) -> None:
        self._publisher.waiting -= 1
        self._publisher.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self._publisher.subscribers.pop(self._transport, None)


async def serve() -> None:
    """Serve until a signal ends the process."""
    loop = asyncio.get_running_loop()
    publisher = Publisher()
    sock = open_listener(send_buffer_bytes=SEND_BUFFER_BYTES)
    server = await loop.create_server(lambda: Client(publisher), sock=sock, backlog=BACKLOG)
    await server.serve_forever()


def main() -> None:
    """Choose the loop and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop")
    loop_factory = asyncio.new_event_loop
    if parser.parse_args().uvloop:
        import uvloop  # a comparator only: not needed to run the others

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main()
