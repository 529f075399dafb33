"""The handlers of config/examples: those that move bytes between two sides, and how one changes its worker."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from core.support.sockets import listen, reset
from core.support.waiting import LIMIT_S
from worker.support.serving import Serving

from gaiod.plugins import build_options, load_handler
from gaiod.testing import Arrived, Arrives, Close, Leaves, Opened, Read, Sent, Write, assert_script

EXAMPLES = Path(__file__).parents[2] / "config" / "examples"

Start = Callable[..., Serving]


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A listener that the test serves."""
    with listen() as sock:
        sock.setblocking(False)
        yield sock


@pytest.fixture
def start() -> Iterator[Start]:
    """A starter of an example, by its file's name, with options as plain values."""
    with ExitStack() as stack:

        def start(name: str, **values: Any) -> Serving:
            handler = load_handler(str(EXAMPLES / f"{name}.py"))
            serving = Serving(handler(build_options(handler, values)))
            stack.callback(serving.close)
            return serving

        yield start


def accepted(serving: Serving, server: socket.socket) -> socket.socket:
    """Return the next connection to the server."""
    taken: list[socket.socket] = []

    def look() -> bool:
        try:
            taken.append(server.accept()[0])
        except BlockingIOError:
            return False
        return True

    serving.step_until(look, "a connection to the server")
    taken[0].settimeout(LIMIT_S)
    return taken[0]


def port_of(server: socket.socket) -> int:
    """Return where it listens."""
    port: int = server.getsockname()[1]
    return port


# -- shout ---------------------------------------------------------------------------------------------


def test_shout_counts_on_in_another_worker() -> None:
    shout = load_handler(str(EXAMPLES / "shout.py"))
    options = build_options(shout, {"bytes_max": 8})
    assert_script(
        shout(options),
        (Opened(), [Write(b"hello\n")]),
        (Sent(), [Read()]),
        (Arrived(b"ping"), [Write(b"PING")]),
        (Leaves(b"4"), []),
    )
    assert_script(
        shout(options),
        (Arrives(b"4", version=1, unsent=b"NG"), []),
        (Sent(), [Read()]),
        (Arrived(b"pong"), [Write(b"PONG")]),
        (Sent(), [Close()]),
    )
    assert_script(shout(options), (Arrives(b"4", version=1), [Read()]))


# -- rewrite -------------------------------------------------------------------------------------------


def rewritten(serving: Serving, server: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Return a client and the server's end."""
    client = serving.connect()
    return client, accepted(serving, server)


def test_rewrite_changes_what_goes_by_in_both_directions(start: Start, server: socket.socket) -> None:
    serving = start("rewrite", port=port_of(server))
    client, far = rewritten(serving, server)
    with far:
        client.sendall(b"card 4711")
        assert serving.receive(far, 9) == b"card ####"
        far.sendall(b"balance 12")
        assert serving.receive(client, 10) == b"balance ##"


@pytest.mark.parametrize("first", ["client", "server"])
def test_rewrite_passes_the_end_of_one_side_on_and_the_other_may_still_speak(
    start: Start, server: socket.socket, first: str
) -> None:
    serving = start("rewrite", port=port_of(server))
    client, far = rewritten(serving, server)
    done, other = (client, far) if first == "client" else (far, client)
    with far:
        done.sendall(b"that is all")
        done.shutdown(socket.SHUT_WR)
        assert serving.receive(other, 12) == b"that is all", "and its end"
        other.sendall(b"x" * 100_000)
        assert serving.receive(done, 100_000) == b"x" * 100_000
        other.shutdown(socket.SHUT_WR)
        assert serving.is_ended(done)
        serving.step_until(lambda: serving.clients() == 0, "the end of both")
        assert serving.closes() == {"peer_eof": 1}


def test_rewrite_reads_no_more_of_who_is_faster_than_its_partner(start: Start, server: socket.socket) -> None:
    serving = start("rewrite", port=port_of(server))
    client, far = rewritten(serving, server)
    with far:
        client.setblocking(False)
        sent = still = 0
        while still < 20:
            try:
                sent += client.send(bytes(1 << 16))
                still = 0
            except BlockingIOError:
                still += 1
            serving.step()
        held = [conn.pending_write_bytes for conn in serving.watcher.connections()]
        assert 0 < sum(held) <= 65536
        assert serving.receive(far, sent) == bytes(sent)


@pytest.mark.parametrize("how", ["reset", "refused"])
def test_rewrite_lets_a_client_go_whose_server_has_gone(start: Start, server: socket.socket, how: str) -> None:
    serving = start("rewrite", port=port_of(server))
    if how == "refused":
        server.close()
        client = serving.connect()
    else:
        client, far = rewritten(serving, server)
        reset(far)
    assert serving.is_ended(client)
    serving.step_until(lambda: serving.clients() == 0, "the end of both")
    assert all(serving.count(f"handler_error_{hook}") == 0 for hook in ("on_read", "on_write", "on_connect"))


# -- route ---------------------------------------------------------------------------------------------


def test_route_connects_to_the_server_that_the_first_line_names(start: Start, server: socket.socket) -> None:
    serving = start("route", routes={"db": {"port": port_of(server)}, "other": {"port": 1}})
    client = serving.connect()
    client.sendall(b"db or")
    serving.step()
    client.sendall(b" not db\nsecond line")
    with accepted(serving, server) as far:
        assert serving.receive(far, 24) == b"db or not db\nsecond line"
        far.sendall(b"answer")
        assert serving.receive(client, 6) == b"answer"
        client.close()
        assert serving.is_ended(far)
    serving.step_until(lambda: serving.clients() == 0, "the end of both")


@pytest.mark.parametrize("line", [b"nonsense\n", b"\n", b"\xff\xfe\n"])
def test_route_tells_a_client_that_there_is_no_such_service(start: Start, line: bytes) -> None:
    serving = start("route", routes={"db": {"port": 1}})
    client = serving.connect()
    client.sendall(line)
    assert serving.receive(client, 100) == b"no such service\n"


def test_route_lets_a_client_go_that_does_not_come_to_the_point(start: Start) -> None:
    serving = start("route", routes={"db": {"port": 1}}, line_timeout=0.1)
    client, silent = serving.connect(), serving.connect()
    client.sendall(b"x" * 2000)
    assert serving.is_ended(client)
    assert serving.is_ended(silent)
    serving.step_until(lambda: serving.closes() == {"handler": 1, "deadline": 1}, "both being counted")


def test_route_lets_a_client_go_whose_server_refuses(start: Start, server: socket.socket) -> None:
    serving = start("route", routes={"db": {"port": port_of(server)}})
    server.close()
    client = serving.connect()
    client.sendall(b"db\n")
    assert serving.is_ended(client)
    serving.step_until(lambda: serving.clients() == 0, "the end of both")
