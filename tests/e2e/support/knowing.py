"""What a proxy's knowledge is tested with: servers that count who comes, and a name server that can be taken away."""

import os
import signal
import socket
import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from core.support.waiting import LIMIT_S

from e2e.support.clients import exchange
from e2e.support.daemons import Daemon
from e2e.support.waiting import wait_until

RESOLVER = '''\
"""Has every process look names up in a file: a line for each, the name and its addresses."""
import os
import socket

_system = socket.getaddrinfo


def getaddrinfo(host, port, *arguments, **named):
    if not isinstance(host, str) or not host.endswith(".test"):
        return _system(host, port, *arguments, **named)
    try:
        with open(os.environ["TEST_ZONE"]) as file:
            zone = dict(line.split(maxsplit=1) for line in file)
    except FileNotFoundError:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution") from None
    if host not in zone:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port or 0)) for address in zone[host].split()]


socket.getaddrinfo = getaddrinfo
'''


class Zone:
    """The names that a daemon finds.

    Attributes:
        environment: what the daemon needs for it.
    """

    def __init__(self, folder: Path) -> None:
        (folder / "python").mkdir()
        (folder / "python" / "sitecustomize.py").write_text(RESOLVER)
        self._file = folder / "zone"
        self.environment = {"PYTHONPATH": str(folder / "python"), "TEST_ZONE": str(self._file)}

    def set(self, names: Mapping[str, str]) -> None:
        """Let it answer with these addresses, separated by spaces, from now on."""
        new = self._file.with_suffix(".new")
        new.write_text("".join(f"{name} {addresses}\n" for name, addresses in names.items()))
        new.rename(self._file)

    def take_away(self) -> None:
        """Let it answer nothing any more."""
        self._file.unlink()


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, CountingServer)
        self.server.take(self.request)


class CountingServer(socketserver.ThreadingTCPServer):
    """An echo that counts.

    Attributes:
        connections: how many there were.
        clients: how many of those sent something: health checks do not.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        super().__init__(address, _Echo)
        self.connections = self.clients = 0
        self._lock = threading.Lock()
        host, port = self.socket.getsockname()
        self.label = f"{host}:{port}"

    def take(self, sock: socket.socket) -> None:
        """Serve a connection."""
        with self._lock:
            self.connections += 1
        sock.settimeout(LIMIT_S)
        is_first = True
        try:
            while data := sock.recv(4096):
                if is_first:
                    is_first = False
                    with self._lock:
                        self.clients += 1
                sock.sendall(data)
        except OSError:
            pass  # it was reset, or the test is over


@contextmanager
def counting(*, count: int = 1, address: tuple[str, int] = ("127.0.0.1", 0)) -> Iterator[list[CountingServer]]:
    """Give servers, at addresses of their own, or one at `address`."""
    servers = [CountingServer(address) for _ in range(count)]
    threads = [threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield servers
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def echoes_often(address: str, times: int) -> None:
    """Have so many clients served, one after the other, or fail."""
    for number in range(times):
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=LIMIT_S) as sock:
            assert exchange(sock, b"%d" % number) == b"%d" % number


def replaced(running: Daemon, how: str) -> None:
    """Replace processes of a daemon: `reload`, `restart`, `kill` (its first worker) or `upgrade`."""
    match how:
        case "reload" | "upgrade":
            done = running.gaiod(how)
            assert done.returncode == 0, done.stderr
        case "restart":
            done = running.gaiod("workers", "restart")
            assert done.returncode == 0, done.stderr
        case "kill":
            kill_worker(running)


def kill_worker(running: Daemon) -> None:
    """Kill the worker of the lowest number, and wait for another one."""
    workers = running.workers
    os.kill(workers[0], signal.SIGKILL)
    wait_until(lambda: workers[0] not in running.workers and len(running.workers) == len(workers), "another worker")
