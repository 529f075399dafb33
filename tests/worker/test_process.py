"""A worker, from its settings to its exit status, as its supervisor sees it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from core.support.sockets import reset
from core.support.waiting import LIMIT_S, MOMENT_S, TIME_UNIT
from e2e.support.clients import connect, echoes, exchange, is_ended
from e2e.support.feeding import PUSHES
from e2e.support.handlers import FLOODS, HANGS, IMPORTS
from e2e.support.procfs import WORKER_MAX_KIB, private_kib
from e2e.support.waiting import wait_until

from gaiod.process.feed_records import hello, record
from gaiod.process.socket_files import UnixListener
from worker.support.workers import ECHO, HEARTBEAT_INTERVAL_S, NOW, WorkerUnderTest, started_worker

HEAVY = {"asyncio", "click", "h11", "importlib.metadata", "prometheus_client", "ssl", "yaml"}
"""What costs a process megabytes, and is no worker's business."""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerUnderTest]:
    """A worker that waits for its settings."""
    with started_worker(tmp_path) as worker:
        yield worker


def test_worker_says_ready_and_serves(worker: WorkerUnderTest) -> None:
    worker.serve()
    assert echoes(worker.address())


def test_worker_serves_two_listeners_and_counts_them_apart(worker: WorkerUnderTest) -> None:
    worker.serve(ECHO, ECHO)
    with connect(worker.address(1)) as sock:
        assert exchange(sock, bytes(1000)) == bytes(1000)
        assert (worker.count("accepted", 0), worker.count("accepted", 1)) == (0, 1)
        assert worker.count("downstream_received_bytes", 1) == 1000


def test_worker_takes_settings_that_arrive_in_pieces(worker: WorkerUnderTest) -> None:
    line = worker.settings(ECHO)
    for piece in (line[:10], line[10:200], line[200:-1], line[-1:]):
        worker.channel.sendall(piece)
    assert worker.receive()["ready"] is True


@pytest.mark.parametrize("serves", [True, False], ids=["serving", "not serving yet"])
def test_worker_serves_another_socket_instead_of_one_and_connections_go_on(
    worker: WorkerUnderTest, tmp_path: Path, serves: bool
) -> None:
    with ExitStack() as stack, UnixListener.at(str(tmp_path / "new.sock"), backlog=5) as new:
        if serves:
            worker.serve(ECHO, ECHO)
            before = stack.enter_context(connect(worker.address(1)))
            assert exchange(before, b"before") == b"before"
        else:
            worker.channel.sendall(worker.settings(ECHO, ECHO))
            assert worker.receive()["ready"] is True
        worker.pass_socket(1, new)
        if not serves:
            worker.send({"serve": True})
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(LIMIT_S)
            client.connect(new.path)
            assert exchange(client, b"after") == b"after"
        if serves:
            assert exchange(before, b"still") == b"still"
        assert echoes(worker.address(0))


def test_worker_ends_with_0_and_closes_its_connections_when_told_to_stop(worker: WorkerUnderTest) -> None:
    worker.serve()
    with connect(worker.address()) as sock:
        assert exchange(sock, b"ping") == b"ping"
        worker.send(NOW)
        assert sock.recv(1) == b""
    assert worker.wait() == 0
    assert worker.count("closed_drain") == 1
    assert worker.log() == ""


def test_worker_ends_with_0_on_sigterm(worker: WorkerUnderTest) -> None:
    worker.serve()
    worker.kill(signal.SIGTERM)
    assert worker.wait() == 0
    assert worker.log() == ""


def test_worker_ignores_sigint(worker: WorkerUnderTest) -> None:
    """A Ctrl-C goes to the whole group: the supervisor decides."""
    worker.serve()
    worker.kill(signal.SIGINT)
    assert echoes(worker.address())
    worker.send(NOW)
    assert worker.wait() == 0


def test_worker_stops_accepting_when_told_to_stop(worker: WorkerUnderTest) -> None:
    worker.serve()
    assert echoes(worker.address())
    address = worker.address()
    worker.forget_listeners()
    worker.send(NOW)
    assert worker.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        connect(address)


@pytest.mark.quiet
def test_worker_ends_within_a_second_when_its_supervisor_goes(worker: WorkerUnderTest) -> None:
    worker.serve()
    with connect(worker.address()) as sock:
        assert exchange(sock, b"ping") == b"ping"
        worker.hang_up()
        worker.wait(TIME_UNIT)
        assert sock.recv(1) == b""
    assert "the supervisor is gone; stopping" in worker.log()


def test_worker_ends_with_71_when_its_supervisor_goes_before_it_said_anything(worker: WorkerUnderTest) -> None:
    worker.hang_up()
    assert worker.wait() == 71
    assert "Traceback" not in worker.log()


def test_worker_ends_with_0_when_told_to_stop_before_it_has_read_its_settings(worker: WorkerUnderTest) -> None:
    """Both lines wait for it while Python starts."""
    worker.channel.sendall(worker.settings(ECHO) + json.dumps(NOW).encode() + b"\n")
    assert worker.wait() == 0
    assert "Traceback" not in worker.log()


def test_worker_ends_with_78_and_says_why_when_a_handler_is_missing(worker: WorkerUnderTest) -> None:
    worker.channel.sendall(worker.settings(ECHO, "/no/such/file.py"))
    message = worker.receive()
    assert worker.wait() == 78
    assert message is not None, "it ended without a word"
    assert "there is no file /no/such/file.py" in message["failed"]
    assert "Traceback" not in worker.log()


def test_worker_ends_with_78_and_says_where_when_a_handler_cannot_be_made(
    worker: WorkerUnderTest, tmp_path: Path
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        IMPORTS + "class Mine(gaiod.Handler):\n    def __init__(self, options):\n        raise LookupError('no key')\n"
    )
    worker.channel.sendall(worker.settings(str(path)))
    message = worker.receive()
    assert worker.wait() == 78
    assert message is not None, "it ended without a word"
    assert "listener listener-0: making its handler failed: LookupError: no key" in message["failed"]


def test_worker_gives_up_on_a_client_that_does_not_read_when_its_time_is_over(
    worker: WorkerUnderTest, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(FLOODS)
    worker.serve(str(tmp_path / "mine.py"))
    with connect(worker.address()) as sock:
        assert sock.recv(1) == b"\0"
        worker.send(NOW)
        assert worker.wait() == 0
    assert worker.count("closed_drain") == 1


def test_worker_sends_what_was_written_when_told_to_stop(worker: WorkerUnderTest, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FLOODS)
    worker.serve(str(tmp_path / "mine.py"))
    with connect(worker.address()) as sock:
        received = len(sock.recv(1))
        worker.send({"drain": {"timeout_s": LIMIT_S, "eager": True}})
        while part := sock.recv(1 << 20):
            received += len(part)
    assert received == 64 << 20
    assert worker.wait() == 0


def test_worker_takes_another_drain_for_the_one_it_is_at(worker: WorkerUnderTest) -> None:
    """A reload drains it for minutes; then the daemon is stopped."""
    worker.serve()
    with connect(worker.address()) as sock:
        assert exchange(sock, b"ping") == b"ping"
        worker.send({"drain": {"timeout_s": 3600, "eager": False}})
        assert exchange(sock, b"still") == b"still"
        worker.send(NOW)
        assert sock.recv(1) == b""
        assert worker.wait() == 0


def test_worker_drains_one_listener_and_serves_the_other(worker: WorkerUnderTest) -> None:
    worker.serve(ECHO, ECHO)
    with connect(worker.address(0)) as sock:
        assert exchange(sock, b"ping") == b"ping"
        worker.send({"drain_listener": {"listener": "listener-0", "timeout_s": 0}})
        assert sock.recv(1) == b""
    assert echoes(worker.address(1))
    assert (worker.count("closed_drain", 0), worker.count("closed_drain", 1)) == (1, 0)


def test_worker_keeps_the_connections_of_some_listeners_and_drains_the_others(worker: WorkerUnderTest) -> None:
    """Others serve: it ends with its last connection, without a deadline."""
    worker.serve(ECHO, ECHO)
    with connect(worker.address(0)) as kept:
        with connect(worker.address(1)) as drained:
            assert exchange(kept, b"ping") == exchange(drained, b"ping") == b"ping"
            worker.send({"keep": {"listeners": ["listener-0"], "timeout_s": 0}})
            assert is_ended(drained)
        assert exchange(kept, b"still") == b"still"
    assert worker.wait() == 0
    assert (worker.count("closed_drain", 0), worker.count("closed_drain", 1)) == (0, 1)


def test_worker_drains_what_it_is_to_keep_no_more(worker: WorkerUnderTest) -> None:
    worker.serve(ECHO, ECHO)
    with connect(worker.address(0)) as one, connect(worker.address(1)) as other:
        assert exchange(one, b"ping") == exchange(other, b"ping") == b"ping"
        worker.send({"keep": {"listeners": ["listener-0", "listener-1"], "timeout_s": 0}})
        worker.send({"keep": {"listeners": ["listener-1", "elsewhere"], "timeout_s": 0}})
        assert is_ended(one)
        assert exchange(other, b"still") == b"still"
        worker.send({"keep": {"listeners": ["listener-0", "listener-1"], "timeout_s": 0}})  # that one is gone
        assert exchange(other, b"still") == b"still"
        worker.send(NOW)
        assert is_ended(other)
    assert worker.wait() == 0


def test_worker_that_has_nothing_to_keep_ends(worker: WorkerUnderTest) -> None:
    worker.serve()
    worker.send({"keep": {"listeners": ["listener-0"], "timeout_s": 3600}})
    assert worker.wait() == 0


def test_kept_connections_have_timers_and_an_idle_timeout_as_before(worker: WorkerUnderTest, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        f"{IMPORTS}class Ticks(gaiod.Handler):\n"
        "    tick_interval_s = 0.01\n"
        "    conns = set()\n"
        "    def on_open(self, conn):\n"
        "        self.conns.add(conn)\n"
        "        conn.read()\n"
        "    def on_read(self, conn, result):\n"
        "        conn.read()\n"
        "    def on_close(self, conn, reason):\n"
        "        self.conns.discard(conn)\n"
        "    def on_tick(self):\n"
        "        for conn in self.conns:\n"
        "            conn.write(b'.')\n"
        "    def on_write(self, conn, result):\n"
        "        pass\n"
    )
    worker.serve(str(tmp_path / "mine.py"), ECHO, idle_timeout_s=10 * MOMENT_S)
    with connect(worker.address(0)) as ticking, connect(worker.address(1)) as idle:
        assert exchange(idle, b"ping") == b"ping"
        worker.send({"keep": {"listeners": ["listener-0", "listener-1"], "timeout_s": 3600}})
        assert is_ended(idle)
        wait_until(lambda: worker.count("closed_idle", 1) == 1, "the close being counted")
        assert ticking.recv(1) == b"."
    assert worker.wait() == 0


def test_worker_answers_a_question_about_its_connections(worker: WorkerUnderTest) -> None:
    worker.serve()
    with connect(worker.address()) as sock:
        assert exchange(sock, bytes(100)) == bytes(100)
        worker.send({"ask": {"id": 3, "verb": "connections", "listener": None, "sort": "age", "limit": 5}})
        answer = worker.receive()
        assert answer["answer"] == 3
        (row,) = answer["result"]["connections"]
        assert row["id"].startswith("7-")
        assert (row["listener"], row["received_bytes"], row["sent_bytes"]) == ("listener-0", 100, 100)
        worker.send({"ask": {"id": 4, "verb": "kill", "connection": row["id"]}})
        assert worker.receive() == {"answer": 4, "result": {"found": True}}
        assert is_ended(sock)
    wait_until(lambda: worker.count("closed_admin") == 1, "the close being counted")


LINGERS = (
    IMPORTS
    + """
import pathlib

class Lingers(gaiod.Handler):
    def on_open(self, conn):
        conn.read()

    def on_read(self, conn, result):
        pathlib.Path(__file__).with_name("lingers").touch()
        time.sleep(0.1)
"""
)


def test_connection_that_ends_in_the_pass_in_which_it_is_asked_for_is_told_as_closed(
    worker: WorkerUnderTest, tmp_path: Path
) -> None:
    """Between its end and its CLOSE it is neither open nor among those that have closed: the answer waits."""
    (tmp_path / "mine.py").write_text(LINGERS)
    worker.serve(str(tmp_path / "mine.py"))
    with connect(worker.address()) as ended:
        rows: list[dict[str, Any]] = []
        while not rows:
            worker.send({"ask": {"id": 1, "verb": "connections", "listener": None, "sort": "age", "limit": 1}})
            rows = worker.receive()["result"]["connections"]
        with connect(worker.address()) as other:
            other.sendall(b"linger")
            wait_until((tmp_path / "lingers").exists, "the hook that lingers")
            reset(ended)
            worker.send({"ask": {"id": 2, "verb": "explain", "connection": rows[0]["id"]}})
            result = worker.receive()["result"]
    assert result["state"] == "unknown"
    found = worker.closed(rows[0]["id"])
    assert found is not None
    assert found["reason"] == "peer_reset"


def test_heartbeat_goes_on_while_nothing_happens(worker: WorkerUnderTest) -> None:
    worker.serve()
    first_ns = worker.heartbeat_ns()
    assert first_ns > 0
    wait_until(lambda: worker.heartbeat_ns() > first_ns, "the next heartbeat")


def test_heartbeat_stops_and_the_stack_is_left_behind_when_a_hook_hangs(
    worker: WorkerUnderTest, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(HANGS)
    worker.serve(str(tmp_path / "mine.py"))
    with connect(worker.address()) as sock:
        assert exchange(sock, b"hang me") == b"hanging"
        last_ns = worker.heartbeat_ns()
        time.sleep(5 * HEARTBEAT_INTERVAL_S)
        assert worker.heartbeat_ns() == last_ns
        worker.kill(signal.SIGABRT)
        assert worker.wait() == -signal.SIGABRT
    assert "in on_write" in worker.stack()


def test_counts_outlive_the_worker(worker: WorkerUnderTest) -> None:
    worker.serve()
    assert echoes(worker.address(), bytes(500))
    wait_until(lambda: worker.count("downstream_sent_bytes"), "the bytes being counted")
    worker.kill(signal.SIGKILL)
    assert worker.wait() == -signal.SIGKILL
    assert worker.count("downstream_sent_bytes") == 500


def test_connections_in_the_queue_are_served_by_the_next_worker_when_one_is_killed(tmp_path: Path) -> None:
    """The supervisor keeps the listener, so the kernel keeps the queue."""
    (tmp_path / "next").mkdir()
    with started_worker(tmp_path) as first, ExitStack() as clients:
        first.serve()
        first.kill(signal.SIGSTOP)
        queued = [clients.enter_context(connect(first.address())) for _ in range(10)]
        for sock in queued:
            sock.sendall(b"patience")
        first.kill(signal.SIGKILL)
        first.wait()
        second = clients.enter_context(started_worker(tmp_path / "next", sockets=first.sockets))
        second.serve()
        assert [sock.recv(64) for sock in queued] == [b"patience"] * 10


def test_worker_imports_nothing_heavy() -> None:
    """Every worker pays for every module."""
    code = "import sys, gaiod.worker.process; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    assert HEAVY & set(done.stdout.split()) == set()


def test_serving_worker_is_small(worker: WorkerUnderTest) -> None:
    worker.serve()
    assert echoes(worker.address())
    assert private_kib(worker.pid) < WORKER_MAX_KIB


def test_worker_keeps_no_descriptor_of_a_closed_connection(worker: WorkerUnderTest) -> None:
    worker.serve()
    folder = Path(f"/proc/{worker.pid}/fd")
    assert echoes(worker.address())  # it serves: what it opens and closes in order to is done with
    before = len(list(folder.iterdir()))
    for _ in range(50):
        assert echoes(worker.address())
    wait_until(lambda: len(list(folder.iterdir())) <= before, "every descriptor being closed")


@pytest.mark.parametrize("key", [None, "servers"])
def test_worker_of_another_version_than_its_supervisor_says_so(worker: WorkerUnderTest, key: str | None) -> None:
    """It would count where the supervisor looks for something else; which may not say what a listener has."""
    message = json.loads(worker.settings(ECHO))
    message["listeners"][0].pop(key, None)
    os.ftruncate(message["stats"], os.fstat(message["stats"]).st_size + 8)
    worker.send(message)
    assert "its supervisor runs another version: run gaiod upgrade" in worker.receive()["failed"]
    assert worker.wait() == 78


# -- messages ----------------------------------------------------------------------------------------------


@pytest.fixture
def feeder(worker: WorkerUnderTest, tmp_path: Path) -> Iterator[socket.socket]:
    """A listening socket at which the test plays a feeder, for a worker whose listener takes messages."""
    (tmp_path / "mine.py").write_text(PUSHES)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("")
        sock.listen()
        sock.settimeout(LIMIT_S)
        worker.feeder = sock.getsockname().decode()
        worker.feed_keys = {"listener-0": "key"}
        yield sock


def _mine(tmp_path: Path) -> str:
    return f"{tmp_path / 'mine.py'}:Pushes"


def test_worker_that_takes_messages_is_ready_once_the_feeder_has_answered(
    worker: WorkerUnderTest, feeder: socket.socket, tmp_path: Path
) -> None:
    """Whoever connects to it misses nothing from then on."""
    worker.channel.sendall(worker.settings(_mine(tmp_path)))
    link, _ = feeder.accept()
    with link:
        link.settimeout(LIMIT_S)
        assert b'"listener-0": {"key": "key", "sequence": null, ' in link.recv(4096)
        worker.channel.settimeout(MOMENT_S)
        with pytest.raises(TimeoutError):
            worker.channel.recv(1)
        worker.channel.settimeout(LIMIT_S)
        link.sendall(hello({"listener-0": {"number": 0}}, 2) + record(0, 5, b"", b""))
        assert worker.receive()["ready"] is True
        link.sendall(record(0, 6, b"t", b"before anybody is there\n"))
        worker.send({"serve": True})
        worker.send({"ask": {"id": 1, "verb": "fed", "feeder": 2}})
        assert worker.receive() == {"answer": 1, "result": {}}
        with connect(worker.address()) as client:
            assert client.recv(64) == f"open {worker.pid}\n".encode()
            link.sendall(record(0, 7, b"t", b"message\n"))
            assert client.recv(64) == b"message\n"
    assert worker.count("feed_gaps") == 0


def test_worker_that_hands_over_does_so_again_when_others_serve_meanwhile(worker: WorkerUnderTest) -> None:
    """A reload follows the last one at once: who was to take its connections drains itself now."""
    with ExitStack() as stack:
        takers = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2)]
        asked = []
        for taker in takers:
            taker.settimeout(LIMIT_S)
            taker.bind("")
            taker.listen()
            name = "\0" + taker.getsockname()[1:].decode()
            to = [{"stream": name, "descriptors": name}]
            asked.append({"listeners": ["listener-0"], "timeout_s": 3600, "to": to, "handover_timeout_s": 1.0})
        worker.serve()
        client = stack.enter_context(connect(worker.address()))
        assert exchange(client, b"before") == b"before"
        worker.send({"keep": asked[0]})
        stack.enter_context(takers[0].accept()[0])  # and says nothing
        worker.send({"keep": asked[1]})
        stack.enter_context(takers[1].accept()[0])
        assert worker.receive()["handed_over"]["stayed"] == {"timeout": 1}
        assert worker.receive()["handed_over"]["stayed"] == {"timeout": 1}
        assert exchange(client, b"after") == b"after"


def test_worker_hands_some_connections_over_when_asked_to_and_none_on_its_way_out(worker: WorkerUnderTest) -> None:
    with ExitStack() as stack:
        taker = stack.enter_context(socket.socket(socket.AF_UNIX))
        taker.settimeout(LIMIT_S)
        taker.bind("")
        taker.listen()
        name = "\0" + taker.getsockname()[1:].decode()
        to = [{"stream": name, "descriptors": name, "counts": {"listener-0": 1}}]
        worker.serve()
        clients = [stack.enter_context(connect(worker.address())) for _ in range(3)]
        assert [exchange(client, b"before") for client in clients] == [b"before"] * 3
        worker.send({"ask": {"id": 1, "verb": "rebalance", "to": to, "handover_timeout_s": 0.1}})
        stack.enter_context(taker.accept()[0])  # and says nothing
        answer = worker.receive()
        assert (answer["answer"], answer["result"]["moved"], answer["result"]["stayed"]) == (1, 0, {"timeout": 1})
        assert [exchange(client, b"after") for client in clients] == [b"after"] * 3
        worker.send({"drain": {"timeout_s": 3600, "eager": False}})
        worker.send({"ask": {"id": 2, "verb": "rebalance", "to": to, "handover_timeout_s": 3600}})
        assert worker.receive()["result"]["moved"] == 0


def test_who_is_asked_for_some_and_then_leaves_hands_over_to_those_that_come(worker: WorkerUnderTest) -> None:
    with ExitStack() as stack:
        takers = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2)]
        to = []
        for taker in takers:
            taker.settimeout(LIMIT_S)
            taker.bind("")
            taker.listen()
            name = "\0" + taker.getsockname()[1:].decode()
            to.append({"stream": name, "descriptors": name})
        worker.serve()
        client = stack.enter_context(connect(worker.address()))
        assert exchange(client, b"before") == b"before"
        some = [{**to[0], "counts": {"listener-0": 1}}]
        worker.send({"ask": {"id": 1, "verb": "rebalance", "to": some, "handover_timeout_s": 3600}})
        stack.enter_context(takers[0].accept()[0])
        worker.send({"drain": {"timeout_s": 3600, "eager": False, "to": [to[1]], "handover_timeout_s": 0.1}})
        stack.enter_context(takers[1].accept()[0])
        assert worker.receive()["result"]["stayed"] == {}
        assert worker.receive()["handed_over"]["stayed"] == {"timeout": 1}


def test_worker_says_that_it_is_fed_by_a_feeder_when_it_is_and_not_by_one_before(
    worker: WorkerUnderTest, feeder: socket.socket, tmp_path: Path
) -> None:
    worker.channel.sendall(worker.settings(_mine(tmp_path)))
    link, _ = feeder.accept()
    with link:
        link.sendall(hello({"listener-0": {"number": 0}}, 1) + record(0, 5, b"", b""))
        assert worker.receive()["ready"] is True
        worker.send({"ask": {"id": 1, "verb": "fed", "feeder": 2}})
        worker.send({"ask": {"id": 2, "verb": "fed", "feeder": 1}})
        assert worker.receive() == {"answer": 2, "result": {}}
    link, _ = feeder.accept()
    with link:
        link.sendall(hello({"listener-0": {"number": 0}}, 2) + record(0, 9, b"", b""))
        assert worker.receive() == {"answer": 1, "result": {}}
    assert worker.count("feed_gaps") == 4


def test_worker_serves_without_a_feeder_when_none_answers(
    worker: WorkerUnderTest, feeder: socket.socket, tmp_path: Path
) -> None:
    """It may hang for the moment; its subscribers are better off with a connection than without."""
    worker.serve(_mine(tmp_path))
    with connect(worker.address()) as client:
        assert client.recv(64).startswith(b"open ")
