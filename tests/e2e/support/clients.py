"""Clients: of a listener, and of the metrics endpoint."""

import http.client
import select
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from core.support.sockets import receive
from core.support.waiting import LIMIT_S
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families


def connect(address: str) -> socket.socket:
    """Connect to an address as the configuration writes it."""
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(LIMIT_S)
        try:
            sock.connect(address.removeprefix("unix:"))
        except BaseException:
            sock.close()
            raise
        return sock
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=LIMIT_S)


def exchange(sock: socket.socket, data: bytes) -> bytes:
    """Send, and return as many bytes as were sent: what an echo answers."""
    sock.sendall(data)
    return receive(sock, len(data))


def echoes(address: str, data: bytes = b"ping") -> bool:
    """Tell whether a new connection gets its bytes back."""
    with connect(address) as sock:
        return exchange(sock, data) == data


def is_ended(sock: socket.socket) -> bool:
    """Wait for the end of a connection, and tell whether it came: in order or by a reset."""
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True


def readable(socks: list[socket.socket]) -> list[socket.socket]:
    """Return those that have been told something, their end included."""
    poll = select.poll()
    for sock in socks:
        poll.register(sock, select.POLLIN)
    ready = dict(poll.poll(0))
    return [sock for sock in socks if sock.fileno() in ready]


def refuses(address: str) -> bool:
    """Tell whether nobody listens there."""
    try:
        connect(address).close()
    except ConnectionRefusedError:
        return True
    return False


@dataclass(frozen=True)
class Reply:
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes


def request(address: str, target: str, *, method: str = "GET", headers: dict[str, str] | None = None) -> Reply:
    """Make one HTTP request."""
    host, _, port = address.rpartition(":")
    client = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=LIMIT_S)
    try:
        client.request(method, target, headers=headers or {})
        response = client.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, names, response.read())
    finally:
        client.close()


def parse_openmetrics(text: str) -> list[Metric]:
    """Return the families of a scrape in the OpenMetrics format, whose parser lets no mistake pass."""
    return list(openmetrics.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


class Samples:
    """What a scrape brought."""

    def __init__(self, text: str) -> None:
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def __len__(self) -> int:
        return len(self._values)

    def items(self) -> Iterable[tuple[tuple[str, frozenset[tuple[str, str]]], float]]:
        """Return the name and the labels of each sample, and its value."""
        return self._values.items()

    def value(self, name: str, **labels: object) -> float:
        """Return the one sample that has exactly these labels."""
        return self._values[name, frozenset((key, str(value)) for key, value in labels.items())]

    def total(self, name: str, **labels: object) -> float:
        """Return the sum of the samples that have these labels, and maybe more."""
        wanted = {(key, str(value)) for key, value in labels.items()}
        found = [value for (each, has), value in self._values.items() if each == name and wanted <= has]
        assert found, f"no sample {name}{labels}"
        return sum(found)

    def labels(self, name: str) -> list[dict[str, str]]:
        """Return the labels of each sample of that name."""
        return [dict(has) for each, has in self._values if each == name]


def scrape(address: str) -> Samples:
    """Return what /metrics says."""
    reply = request(address, "/metrics")
    assert reply.status == 200, reply
    return Samples(reply.body.decode())
