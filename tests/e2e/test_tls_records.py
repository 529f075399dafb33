"""Records that are allowed, and that no common client sends: by a peer that makes them itself. And a common client."""

import subprocess
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from core.support.sockets import pattern
from core.support.tls import certificate

from e2e.support.clients import connect
from e2e.support.daemons import Daemon
from e2e.support.programs import free_port
from e2e.support.starting import Start
from e2e.support.tls_peers import written
from e2e.support.tools import tool
from e2e.support.waiting import wait_until

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it imports asyncore, where there is one
    from tlslite.errors import BaseTLSException
    from tlslite.handshakesettings import HandshakeSettings
    from tlslite.messages import ApplicationData
    from tlslite.tlsconnection import TLSConnection

NOT_REQUESTED, REQUESTED = 0, 1
"""What a KeyUpdate may ask for (RFC 8446, 4.6.3)."""

VERSIONS = {"1.2": (3, 3), "1.3": (3, 4)}

EMPTY_MAX = 32
"""Most empty records in a row that OpenSSL takes: each is work, and none moves a deadline on."""


@pytest.fixture
def echo(daemon: Start, tmp_path: Path) -> Daemon:
    """A daemon that sends everything back, and writes down why connections closed."""
    own = written(tmp_path, "own", certificate())
    return daemon(
        f"""\
metrics: {{listen: "127.0.0.1:0"}}
log: {{connections: {{close: true}}}}
listeners:
  echo: {{bind: "127.0.0.1:0", handler: echo, tls: {{certificates: [{{chain: {own.chain}, key: {own.key}}}]}}}}
"""
    )


@contextmanager
def peer(running: Daemon, version: str = "1.3", padding: Callable[[int, int, int], int] | None = None) -> Iterator[Any]:
    """Give a client whose handshake is done. It believes every certificate."""
    settings = HandshakeSettings()
    settings.minVersion = settings.maxVersion = VERSIONS[version]
    settings.padding_cb = padding
    with closing(connect(running.address("echo"))) as sock:
        made = TLSConnection(sock)
        made.handshakeClientCert(settings=settings, serverName="localhost")
        yield made


def exhaust(steps: Iterable[Any]) -> None:
    """Do what it does in steps, for who would not wait."""
    for _ in steps:
        pass


def send_empty_records(made: Any, count: int) -> None:
    for _ in range(count):
        exhaust(made._sendMsg(ApplicationData().create(bytearray())))


def is_echoed(made: Any, data: bytes) -> bool:
    made.write(data)
    return bytes(made.read(len(data), len(data))) == data


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [1, 17])
def test_message_in_many_records_arrives(echo: Daemon, version: str, size: int) -> None:
    with peer(echo, version) as made:
        made.recordSize = size
        assert is_echoed(made, bytes(pattern(size * 300)))


@pytest.mark.parametrize("version", VERSIONS)
def test_empty_records_are_nothing(echo: Daemon, version: str) -> None:
    with peer(echo, version) as made:
        for _ in range(3):
            send_empty_records(made, EMPTY_MAX - 1)
            assert is_echoed(made, b"data")


@pytest.mark.parametrize("version", VERSIONS)
def test_flood_of_empty_records_ends_the_connection(echo: Daemon, version: str) -> None:
    with peer(echo, version) as made:
        assert is_echoed(made, b"data")
        with pytest.raises((BaseTLSException, OSError)):
            for _ in range(1000):
                send_empty_records(made, EMPTY_MAX)
    wait_until(lambda: "reason=tls_error who=client how=error cause=protocol" in echo.log(), "the line about the close")
    with peer(echo, version) as made:
        assert is_echoed(made, b"others")


@pytest.mark.parametrize("size", [1, 255, 16_000])
def test_padding_is_taken_off(echo: Daemon, size: int) -> None:
    with peer(echo, padding=lambda length, kind, most: min(size, most - length - 1)) as made:
        for data in (b"x", bytes(pattern(20_000))):
            assert is_echoed(made, data)


def test_keys_are_renewed_again_and_again(echo: Daemon) -> None:
    with peer(echo) as made:
        for number in range(25):
            exhaust(made.send_keyupdate_request(REQUESTED if number % 2 else NOT_REQUESTED))
            assert is_echoed(made, b"with other keys, number %d" % number)


def test_curl_speaks_with_what_is_behind_the_proxy(daemon: Start, tmp_path: Path) -> None:
    own = written(tmp_path, "own", certificate())
    port = free_port()
    running = daemon(
        f"""\
metrics: {{listen: "127.0.0.1:{port}"}}
listeners:
  front:
    bind: 127.0.0.1:0
    handler: proxy
    tls: {{certificates: [{{chain: {own.chain}, key: {own.key}}}]}}
    with: {{servers: ["127.0.0.1:{port}"]}}
"""
    )
    front = running.address("front").rpartition(":")[2]
    for version in ("--tlsv1.3", "--tls-max=1.2"):
        done = subprocess.run(
            [tool("curl", "curl"), "--silent", "--show-error", "--fail", "--noproxy", "*", "--cacert", own.chain,
             "--resolve", f"localhost:{front}:127.0.0.1", *version.split("="), f"https://localhost:{front}/metrics"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done
        assert "gaiod_build_info" in done.stdout
    counted = running.scrape()
    for used in VERSIONS:
        assert counted.value("gaiod_tls_handshakes_total", listener="front", result="full", version=used) == 1
