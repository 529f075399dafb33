"""Any bytes at a push listener where clients choose their topics: a subscription, or an error; never a traceback."""

import socket

import pytest
from core.support.waiting import LIMIT_S
from e2e.support.clients import connect
from e2e.support.starting import Start
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chaos.support.daemons import workers_of

pytestmark = pytest.mark.chaos

CONFIG = """\
workers: 1
drain_timeout: 5s
metrics: {listen: "127.0.0.1:0"}
listeners:
  ticks: {bind: "127.0.0.1:0", handler: push, with: {subscribe: {timeout: 100ms, topics_max: 4}, last_value: true}}
"""

PIECES = st.binary(max_size=300) | st.sampled_from(
    [b"SUBSCRIBE", b"SUBSCRIBE ", b"SUBSCRIBE a\n", b"subscribe a\n", b" ", b"\n", b"\r\n", b"\0", b"\xff", b"a " * 200]
)


def _said(address: str, pieces: list[bytes]) -> bytes:
    """Send the pieces and a FIN; return what comes until the end, or at once to a subscriber."""
    with connect(address) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces:
                sock.sendall(piece)
            sock.shutdown(socket.SHUT_WR)
            return sock.recv(4096)
        except ConnectionError:
            return b""  # reset, because it went on sending after its line had been refused


@pytest.mark.parametrize(
    "examples", [pytest.param(150, id="short"), pytest.param(5000, marks=pytest.mark.slow, id="long")]
)
def test_any_first_line_is_answered_or_refused_and_the_listener_serves_on(daemon: Start, examples: int) -> None:
    """Each subscriber gets the topic's last message; any other client an error that is one printable line."""
    running = daemon(CONFIG)
    address = running.address("ticks")
    (worker,) = workers_of(running)
    assert running.gaiod("publish", "a", "the last").returncode == 0

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @example([b"SUBSCRIBE a\n"])
    @example([b"SUBSCRIBE a", b" a\r\nSUBSCRIBE b\n"])
    @example([b"x" * 100_000])
    @given(st.lists(PIECES, max_size=5))
    def check(pieces: list[bytes]) -> None:
        line, newline, _ = b"".join(pieces).partition(b"\n")
        topics = line.removesuffix(b"\r").split(b" ")[1:]
        if newline and line.startswith(b"SUBSCRIBE ") and topics and set(topics) == {b"a"} and len(topics) <= 4:
            assert _said(address, pieces) == b"the last\n"
        elif newline and line.startswith(b"SUBSCRIBE ") and len(line) <= 1024:
            with connect(address) as sock:  # other topics, maybe: nothing is published there to wait for
                sock.sendall(b"".join(pieces))
        else:
            said = _said(address, pieces)
            assert said == b"" or (said.startswith(b"ERROR ") and said.endswith(b"\n") and said[:-1].isascii())

    check()
    with connect(address) as sock:
        sock.settimeout(LIMIT_S)
        sock.sendall(b"SUBSCRIBE a\n")
        assert sock.recv(100) == b"the last\n"
    assert workers_of(running) == [worker]
    assert "Traceback" not in running.log()
