"""socks5: connect clients to where they ask (RFC 1928), if that is allowed. One coroutine for each."""

from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from gaiod import CoroutineHandler, Stream

REFUSED, DENIED, UNREACHABLE, COMMAND_UNKNOWN, KIND_UNKNOWN = 5, 2, 4, 7, 8


class Socks5(CoroutineHandler):
    """CONNECT without a password, by number or by name, to networks that are allowed."""

    @dataclass
    class Options:
        """What `with:` may say."""

        allow: list[str] = field(default_factory=lambda: ["127.0.0.0/8", "::1/128"])

        def __post_init__(self) -> None:
            self.networks = [ip_network(network) for network in self.allow]

    async def handle(self, conn: Stream) -> None:
        version, count = await conn.read_exactly(2, timeout=10)
        if version != 5 or 0 not in await conn.read_exactly(count, timeout=10):
            await conn.write(b"\5\xff")
            return
        await conn.write(b"\5\0")
        _, command, _, kind = await conn.read_exactly(4, timeout=10)
        size = {1: 4, 4: 16}.get(kind) or (await conn.read_exactly(1, timeout=10))[0]
        host, port = await conn.read_exactly(size, timeout=10), int.from_bytes(await conn.read_exactly(2, timeout=10))
        server = await self.reach(command, kind, host, port)
        if isinstance(server, int):
            await conn.write(bytes((5, server, 0, 1)) + bytes(6))
        else:
            await conn.write(bytes((5, 0, 0, 1)) + bytes(6))
            await conn.relay(server)

    async def reach(self, command: int, kind: int, host: bytes, port: int) -> Stream | int:
        """Return the connection that a client asks for, or the code of why there is none."""
        if command != 1 or kind not in (1, 3, 4):
            return COMMAND_UNKNOWN if command != 1 else KIND_UNKNOWN
        try:
            names = await self.resolve(host.decode(), port) if kind == 3 else [(str(ip_address(host)), port)]
            for address in names:
                if any(ip_address(address[0]) in network for network in self.options.networks):
                    return await self.connect(address, timeout=10)
        except (OSError, ValueError) as error:
            return REFUSED if isinstance(error, ConnectionRefusedError) else UNREACHABLE
        return DENIED
