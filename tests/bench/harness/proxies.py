"""The proxies that are compared, how each is started, and which cannot be run here."""

import json
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness.packages import haproxy_command, has_haproxy, nginx_command, nginx_load_module
from harness.processes import Child, running
from harness.servers import BENCH, START_TIMEOUT_S, Programs, Server
from harness.tls import Pair

REFERENCES = ("haproxy", "haproxy-splice", "nginx", "c-copy", "c-splice")
PROXY_NAMES = ("gaiod", *REFERENCES, "gaiod-interpreted")


@dataclass(frozen=True)
class Proxy:
    """One way to forward to a server on another core: a program that listens on the port it is given."""

    name: str
    command: Callable[[int, int], tuple[str, ...]]
    """Returns the command that listens on the first port and forwards to the second."""
    backend: Server
    backend_cpu: int
    environment: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def serving(self, cpu: int) -> Iterator[tuple[Child, int]]:
        """Run a fresh server on its core, and the proxy on another; yield the proxy and its port.

        Raises:
            BenchError: one of them did not start.
        """
        with self.backend.serving(self.backend_cpu) as (_, backend_port):
            port = free_port()
            with running(self.name, self.command(port, backend_port), cpu, self.environment) as child:
                child.expect_connection(port, START_TIMEOUT_S)
                yield child, port


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on; nothing keeps it free."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


def gaiod_command(port: int, backend_port: int, *flags: str) -> tuple[str, ...]:
    """Return the command that runs gaiod's proxy."""
    options = json.dumps({"servers": [f"127.0.0.1:{backend_port}"]})
    return (sys.executable, str(BENCH / "servers" / "gaiod_proxy.py"), str(port), "proxy", options, *flags)


def missing_proxies(*, of_this_machine: bool = False) -> dict[str, str]:
    """Return the proxies that cannot be run here, and what to do about each; `of_this_machine`: not of another root."""
    missing: dict[str, str] = {}
    if not has_haproxy(of_this_machine=of_this_machine):
        missing |= dict.fromkeys(("haproxy", "haproxy-splice"), "install haproxy")
    if nginx_load_module(of_this_machine=of_this_machine) is None:
        missing["nginx"] = "install nginx and its stream module"
    return missing


def known_proxies(programs: Programs, folder: Path, backend_cpu: int) -> dict[str, Proxy]:
    """Return every proxy that can be run here, by name, in the order in which they run.

    Args:
        programs: the compiled C programs.
        folder: where configurations go.
        backend_cpu: the core of the server behind the proxy.
    """
    backend = Server("backend", (str(programs.echo_epoll),))

    def relay(how: str) -> Callable[[int, int], tuple[str, ...]]:
        return lambda port, backend_port: (str(programs.relay_epoll), how, str(port), str(backend_port))

    def haproxy(*, splice: bool) -> Callable[[int, int], tuple[str, ...]]:
        return lambda port, backend_port: haproxy_command(folder, port, backend_port, splice=splice)

    def nginx(port: int, backend_port: int) -> tuple[str, ...]:
        return nginx_command(folder, port, backend_port)

    def gaiod(port: int, backend_port: int) -> tuple[str, ...]:
        return gaiod_command(port, backend_port)

    proxies = (
        Proxy("haproxy", haproxy(splice=False), backend, backend_cpu),
        Proxy("nginx", nginx, backend, backend_cpu),
        Proxy("c-copy", relay("copy"), backend, backend_cpu),
        Proxy("gaiod", gaiod, backend, backend_cpu, {"GAIOD_ENGINE": "compiled"}),
        Proxy("c-splice", relay("splice"), backend, backend_cpu),
        Proxy("haproxy-splice", haproxy(splice=True), backend, backend_cpu),
        Proxy("gaiod-interpreted", gaiod, backend, backend_cpu, {"GAIOD_ENGINE": "interpreted"}),
    )
    missing = missing_proxies()
    return {proxy.name: proxy for proxy in proxies if proxy.name not in missing}


def known_tls_proxies(programs: Programs, folder: Path, backend_cpu: int, pair: Pair) -> dict[str, Proxy]:
    """Return the proxies that speak TLS with their clients, and none with the server behind them.

    haproxy and nginx are the machine's: they use its OpenSSL, as gaiod does. The handshake and the records are most of
    the work, and another version does them at another speed.

    Args:
        programs: the compiled C programs, without TLS.
        folder: where configurations go.
        backend_cpu: the core of the server behind the proxy.
        pair: the certificate that is shown to clients.
    """
    backend = Server("backend", (str(programs.echo_epoll),))

    def haproxy(port: int, backend_port: int) -> tuple[str, ...]:
        return haproxy_command(folder, port, backend_port, pair=pair)

    def nginx(port: int, backend_port: int) -> tuple[str, ...]:
        return nginx_command(folder, port, backend_port, pair=pair)

    def gaiod(port: int, backend_port: int) -> tuple[str, ...]:
        return gaiod_command(port, backend_port, "--tls", *pair.words)

    proxies = (
        Proxy("haproxy", haproxy, backend, backend_cpu),
        Proxy("nginx", nginx, backend, backend_cpu),
        Proxy("gaiod", gaiod, backend, backend_cpu, {"GAIOD_ENGINE": "compiled"}),
        Proxy("gaiod-interpreted", gaiod, backend, backend_cpu, {"GAIOD_ENGINE": "interpreted"}),
    )
    missing = missing_proxies(of_this_machine=True)
    return {proxy.name: proxy for proxy in proxies if proxy.name not in missing}
