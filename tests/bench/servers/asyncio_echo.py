"""The asyncio comparator: an echo `Protocol`, on asyncio's own loop or on uvloop (`--uvloop`).

With `--aiofastnet` the loop, whichever it is, only polls: aiofastnet's transports move the bytes.
"""

import argparse
import asyncio
import logging
import ssl
from typing import cast

from listener import BACKLOG, open_listener


class Echo(asyncio.Protocol):
    """Writes back what arrives; the transport buffers what the kernel does not take."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's does not derive from it

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Do the same with asyncio's streams."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def serve(tls: ssl.SSLContext | None, *, with_aiofastnet: bool, with_streams: bool) -> None:
    """Serve until a signal ends the process."""
    loop = asyncio.get_running_loop()
    sock = open_listener()
    if with_aiofastnet:
        import aiofastnet  # a comparator only: not needed to run the others

        server = await aiofastnet.create_server(loop, Echo, sock=sock, backlog=BACKLOG, ssl=tls)
    elif with_streams:
        server = await asyncio.start_server(handle, sock=sock, backlog=BACKLOG, ssl=tls)
    else:
        server = await loop.create_server(Echo, sock=sock, backlog=BACKLOG, ssl=tls)
    await server.serve_forever()


def main() -> None:
    """Choose the loop and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop")
    parser.add_argument("--aiofastnet", action="store_true", help="let aiofastnet's transports move the bytes")
    parser.add_argument("--streams", action="store_true", help="echo in a coroutine, with a reader and a writer")
    parser.add_argument("--tls", nargs=2, metavar=("CHAIN", "KEY"), help="speak TLS, with a certificate from two files")
    arguments = parser.parse_args()
    tls = None
    if arguments.tls:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*arguments.tls)
        tls.num_tickets = 1
        logging.getLogger("asyncio").disabled = True  # the runner's first connection comes and goes without TLS
    loop_factory = asyncio.new_event_loop
    if arguments.uvloop:
        import uvloop  # a comparator only: not needed to run the others

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve(tls, with_aiofastnet=arguments.aiofastnet, with_streams=arguments.streams))


if __name__ == "__main__":
    main()
