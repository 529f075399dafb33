"""The servers that are compared, and how each is started."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from harness.processes import Child, compile_c, running

BENCH = Path(__file__).parent.parent
START_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Programs:
    """The compiled C programs."""

    load: Path
    echo_epoll: Path
    relay_epoll: Path
    subscribe: Path
    push_epoll: Path


def compile_programs(folder: Path, *more_flags: str) -> Programs:
    """Compile the C programs into `folder`.

    Raises:
        BenchError: there is no compiler, or it refuses a source.
    """
    sources = ("load.c", "echo_epoll.c", "relay_epoll.c", "subscribe.c", "push_epoll.c")
    return Programs(*(compile_c(BENCH / source, folder, *more_flags) for source in sources))


class Measured(Protocol):
    """A process whose use of the machine is measured."""

    @property
    def pid(self) -> int:
        """Return its number."""


class Contestant(Protocol):
    """What is compared: a server, or a proxy with a server behind it."""

    @property
    def name(self) -> str:
        """Return what the tables call it."""

    def serving(self, cpu: int) -> AbstractContextManager[tuple[Measured, int]]:
        """Run it pinned to one core; yield the process to be measured and the port that echoes."""


@dataclass(frozen=True)
class Server:
    """One way to echo: a program that prints `listening PORT`."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def with_flags(self, *flags: str) -> "Server":
        """Return this server started with more flags, which its name then shows."""
        return replace(self, name=" ".join((self.name, *flags)), command=self.command + flags)

    @contextmanager
    def serving(self, cpu: int) -> Iterator[tuple[Child, int]]:
        """Run it pinned to one core; yield it and its port once it has seen one connection come and go.

        asyncio reads into 256 KiB of new bytes. glibc maps and unmaps them for every read until the first
        such block is freed whole, at the first end of a stream: up to there a message costs three times
        the CPU, and it is not that what is to be compared.

        Raises:
            BenchError: it did not get that far.
        """
        with running(self.name, self.command, cpu, self.environment) as child:
            port = int(child.expect("listening", START_TIMEOUT_S))
            child.expect_connection(port, START_TIMEOUT_S)
            yield child, port


def missing_servers() -> dict[str, str]:
    """Return the servers that cannot be run here, and what to do about each."""
    return {} if find_spec("aiofastnet") else {"aiofastnet": "pip install aiofastnet"}


def known_servers(programs: Programs, pair: Sequence[str] = ()) -> dict[str, Server]:
    """Return every server that can be run here, by name, in the order in which they run: gaiod among its references.

    Args:
        programs: the compiled C programs.
        pair: the files of a certificate and its key: then the servers speak TLS, and the C program has to be one that
            does.
    """
    flags = ("--tls", *pair) if pair else ()
    python_server = (sys.executable, str(BENCH / "servers" / "asyncio_echo.py"), *flags)
    gaiod_server = (sys.executable, str(BENCH / "servers" / "gaiod_echo.py"), *flags)
    servers = (
        Server("c", (str(programs.echo_epoll), *pair)),
        Server("gaiod", gaiod_server, {"GAIOD_ENGINE": "compiled"}),
        Server("uvloop", (*python_server, "--uvloop")),
        Server("aiofastnet", (*python_server, "--uvloop", "--aiofastnet")),
        Server("asyncio", python_server),
        Server("gaiod-interpreted", gaiod_server, {"GAIOD_ENGINE": "interpreted"}),
    )
    missing = missing_servers()
    return {server.name: server for server in servers if server.name not in missing}


def known_coroutine_servers() -> dict[str, Server]:
    """Return the echoes that are held against one that is a coroutine of gaiod's, and that one behind gaiod's hooks."""
    python_server = (sys.executable, str(BENCH / "servers" / "asyncio_echo.py"))
    gaiod_server = (sys.executable, str(BENCH / "servers" / "gaiod_echo.py"))
    servers = (
        Server("gaiod", gaiod_server, {"GAIOD_ENGINE": "compiled"}),
        Server("gaiod-coroutine", (*gaiod_server, "--coroutine"), {"GAIOD_ENGINE": "compiled"}),
        Server("uvloop", (*python_server, "--uvloop")),
        Server("uvloop-streams", (*python_server, "--uvloop", "--streams")),
        Server("asyncio-streams", (*python_server, "--streams")),
    )
    return {server.name: server for server in servers}
