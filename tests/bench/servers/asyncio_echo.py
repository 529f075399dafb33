"""The asyncio comparator: an echo `Protocol`, on asyncio's own loop or on uvloop (`--uvloop`)."""

import argparse
import asyncio
from typing import cast

from listener import BACKLOG, open_listener


class Echo(asyncio.Protocol):
    """Writes back what arrives; the transport buffers what the kernel does not take."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's does not derive from it

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def serve() -> None:
    """Serve until a signal ends the process."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, sock=open_listener(), backlog=BACKLOG)
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
