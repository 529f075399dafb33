"""Reloading: what the file says is served, or everything stays as it was; and nobody's connection ends for it."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from core.support.sockets import listen, receive

from e2e.support.clients import connect, echoes, exchange, is_ended, refuses, request
from e2e.support.daemons import Daemon
from e2e.support.handlers import IMPORTS, SHOUT
from e2e.support.procfs import inodes_of, is_stopped
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

TOP = 'metrics: {listen: "127.0.0.1:0"}\n'
ONE = '  one: {bind: "127.0.0.1:0", handler: echo}\n'
TWO = '  two: {bind: "127.0.0.1:0", handler: echo}\n'

SAYS = IMPORTS + (
    "class Says(gaiod.Handler):\n"
    "    def on_open(self, conn):\n"
    "        conn.write(b'%s')\n"
    "    def on_write(self, conn, result):\n"
    "        conn.read()\n"
)


def config(*listeners: str, top: str = TOP) -> str:
    """Return the text of a configuration."""
    return f"{top}listeners:\n{''.join(listeners)}"


@pytest.fixture
def clients() -> Iterator[ExitStack]:
    """Closes the sockets that it is given."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The configuration's file."""
    return tmp_path / "gaiod.yaml"


def _reload(running: Daemon, file: Path, text: str) -> int:
    """Have it serve another text; return the number of the generation."""
    file.write_text(text)
    generation: int = running.ask("reload")["generation"]
    return generation


def _refused(running: Daemon, file: Path, text: str, status: int) -> str:
    """Have it try to, and fail with a status; return what it says."""
    file.write_text(text)
    generation, workers = running.ask("status")["generation"], running.workers
    done = running.gaiod("reload")
    assert (done.returncode, done.stdout) == (status, ""), done
    assert done.stderr.strip() in running.log()
    assert "the reload failed, and everything stays as it was" in running.log()
    after = running.ask("status")
    assert (after["generation"], after["last_reload"]["ok"], running.workers) == (generation, False, workers)
    samples = running.scrape()
    assert samples.value("gaiod_config_last_reload_successful") == 0
    assert samples.value("gaiod_config_reloads_total", result="failure") == 1
    assert samples.value("gaiod_ready") == 1
    return done.stderr


# -- listeners -------------------------------------------------------------------------------------------


def test_listener_that_is_new_is_served_and_the_others_keep_their_sockets(daemon: Start, file: Path) -> None:
    running = daemon(config(ONE))
    address, sockets = running.address("one"), inodes_of(running.pid, running.address("one"))
    assert _reload(running, file, config(ONE, TWO)) == 2
    names = {row["listener"]: row["bind"] for row in running.ask("status")["listeners"]}
    assert names["one"] == address
    assert inodes_of(running.pid, address) == sockets
    assert echoes(address)
    assert echoes(names["two"])


def test_connection_goes_on_over_a_reload(daemon: Start, file: Path) -> None:
    running = daemon(config(ONE))
    (old,) = running.workers
    with connect(running.address("one")) as sock:
        assert exchange(sock, b"before") == b"before"
        _reload(running, file, config(ONE, TWO))
        assert running.workers != [old]
        assert exchange(sock, b"after") == b"after"
        wait_until(lambda: old not in {row["pid"] for row in running.ask("status")["workers"]}, "the old worker's end")
        assert exchange(sock, b"still") == b"still"


def test_listener_that_is_removed_refuses_and_its_connections_go_on(daemon: Start, file: Path) -> None:
    running = daemon(config(ONE, TWO))
    with connect(running.address("two")) as sock:
        assert exchange(sock, b"ping") == b"ping"
        _reload(running, file, config(ONE))
        assert exchange(sock, b"still") == b"still"
        wait_until(lambda: refuses(running.address("two")), "the refusal")
    assert echoes(running.address("one"))
    assert [row["listener"] for row in running.ask("status")["listeners"]] == ["one"]
    assert not [each for each in running.scrape().labels("gaiod_connections_limit") if each["listener"] == "two"]


def test_unix_listener_that_is_removed_takes_its_file_along(daemon: Start, file: Path, tmp_path: Path) -> None:
    path = tmp_path / "two.sock"
    running = daemon(config(ONE, f'  two: {{bind: "unix:{path}", handler: echo}}\n'))
    assert echoes(f"unix:{path}")
    _reload(running, file, config(ONE))
    assert not path.exists()


def test_handler_and_options_change_for_new_connections_only(daemon: Start, file: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SHOUT)
    running = daemon(config(ONE))
    address = running.address("one")
    with connect(address) as old:
        assert exchange(old, b"quiet") == b"quiet"
        _reload(running, file, config('  one: {bind: "127.0.0.1:0", handler: ./mine.py, with: {prefix: oi}}\n'))
        _wait_for_new(address, b"oi 1.0\n")
        with connect(address) as new:
            assert receive(new, 7) == b"oi 1.0\n"
            assert exchange(new, b"loud") == b"LOUD"
        assert exchange(old, b"quiet") == b"quiet"


def _wait_for_new(address: str, greeting: bytes) -> None:
    """Wait until connections are greeted so: an old worker may accept until it has heard that it is one."""

    def look() -> bool:
        with connect(address) as sock:
            sock.sendall(b"x")
            return sock.recv(64).startswith(greeting)

    wait_until(look, f"{greeting!r}")


def test_backlog_and_nodelay_change_on_the_socket_that_is_there(daemon: Start, file: Path) -> None:
    running = daemon(config(ONE))
    address = running.address("one")
    sockets = inodes_of(running.pid, address)
    _reload(running, file, config('  one: {bind: "127.0.0.1:0", handler: echo, backlog: 7, connections_max: 3}\n'))
    samples = running.scrape()
    assert samples.value("gaiod_listen_queue_limit", listener="one", worker=0) == 7
    assert samples.value("gaiod_connections_limit", listener="one") == 3
    assert inodes_of(running.pid, address) == sockets
    assert echoes(address)


def test_code_that_changed_on_disk_is_what_new_connections_get(daemon: Start, file: Path, tmp_path: Path) -> None:
    text = config('  one: {bind: "127.0.0.1:0", handler: ./mine.py}\n')
    (tmp_path / "mine.py").write_text(SAYS % "first")
    running = daemon(text)
    address = running.address("one")
    with connect(address) as sock:
        assert receive(sock, 5) == b"first"
    (tmp_path / "mine.py").write_text(SAYS % "second")
    _reload(running, file, text)
    _wait_for_new(address, b"second")


def test_metrics_move_to_another_address(daemon: Start, file: Path, tmp_path: Path) -> None:
    running = daemon(config(ONE))
    before = running.metrics
    with listen() as probe:
        port = probe.getsockname()[1]
    _reload(running, file, config(ONE, top=f'metrics: {{listen: "127.0.0.1:{port}"}}\n'))
    assert running.metrics == f"127.0.0.1:{port}"
    assert request(running.metrics, "/readyz").status == 200
    assert refuses(before)


# -- workers ---------------------------------------------------------------------------------------------


def test_more_workers_serve_after_a_reload(daemon: Start, file: Path) -> None:
    running = daemon(config(ONE))
    _reload(running, file, config(ONE, top=f"workers: 3\n{TOP}"))
    assert len(running.workers) == 3
    for _ in range(20):
        assert echoes(running.address("one"))


def test_nobody_who_waits_is_lost_when_there_are_fewer_workers(daemon: Start, file: Path, clients: ExitStack) -> None:
    """The kernel has put them into the queue of a socket whose worker is not to come back."""
    running = daemon(config(ONE, top=f"workers: 2\n{TOP}"))
    address, workers = running.address("one"), running.workers
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
        wait_until(lambda worker=worker: is_stopped(worker), "the worker's stop")  # type: ignore[misc]
    waiting = [clients.enter_context(connect(address)) for _ in range(20)]
    for sock in waiting:
        sock.sendall(b"patience")
    _reload(running, file, config(ONE, top=f"workers: 1\n{TOP}"))
    for worker in workers:
        os.kill(worker, signal.SIGCONT)
    assert [receive(sock, 8) for sock in waiting] == [b"patience"] * 20
    assert len(running.workers) == 1
    for _ in range(20):
        assert echoes(address)


def test_nobody_is_refused_during_reloads(daemon: Start, file: Path) -> None:
    running = daemon(config(ONE, top=f"workers: 2\n{TOP}"))
    address = running.address("one")
    for _ in range(3):
        running.send(signal.SIGHUP)
        for _ in range(50):
            assert echoes(address)
    wait_until(lambda: running.ask("status")["state"] == "serving", "the end of the reloads")


# -- failures --------------------------------------------------------------------------------------------


def test_file_that_is_wrong_changes_nothing(daemon: Start, file: Path) -> None:
    running = daemon(config(ONE))
    said = _refused(running, file, config(ONE, "  two: {bind: nonsense, handler: echo}\n"), 78)
    assert f"{file}:4:15: listeners.two.bind: " in said
    assert echoes(running.address("one"))


def test_address_in_use_changes_nothing(daemon: Start, file: Path, tmp_path: Path) -> None:
    running = daemon(config(ONE))
    path = tmp_path / "first.sock"
    with listen() as taken:
        port = taken.getsockname()[1]
        said = _refused(
            running,
            file,
            config(
                ONE,
                f'  first: {{bind: "unix:{path}", handler: echo}}\n',
                f'  second: {{bind: "127.0.0.1:{port}", handler: echo}}\n',
            ),
            71,
        )
    assert f"listener second: cannot listen on 127.0.0.1:{port}: Address already in use" in said
    assert not path.exists()
    assert echoes(running.address("one"))


def test_handler_that_cannot_be_made_changes_nothing(daemon: Start, file: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        IMPORTS + "class Mine(gaiod.Handler):\n    def __init__(self, options):\n        raise LookupError('no key')\n"
    )
    running = daemon(config(ONE, top=f"workers: 2\n{TOP}"))
    text = config(ONE, '  two: {bind: "127.0.0.1:0", handler: ./mine.py}\n', top=f"workers: 2\n{TOP}")
    said = _refused(running, file, text, 78)
    assert "listeners.two.with: Mine.__init__ at " in said
    assert "raised LookupError: no key" in said
    assert echoes(running.address("one"))


@pytest.mark.parametrize(
    ("more", "key"),
    [("user: nobody\n", "user"), ("control: {listen: false}\n", "control.listen")],
)
def test_key_that_needs_a_restart_is_refused_with_words(daemon: Start, file: Path, more: str, key: str) -> None:
    running = daemon(config(ONE))
    said = _refused(running, file, config(ONE, top=more + TOP), 78)
    assert said.startswith(f"{key}: a reload cannot change it")
    assert "restart gaiod" in said


def test_reload_works_again_when_the_file_was_corrected(daemon: Start, file: Path) -> None:
    running = daemon(config(ONE))
    _refused(running, file, "listeners: {}\n", 78)
    assert _reload(running, file, config(ONE)) == 2
    samples = running.scrape()
    assert samples.value("gaiod_config_last_reload_successful") == 1
    assert samples.value("gaiod_config_reloads_total", result="success") == 1
    assert samples.value("gaiod_worker_restarts_total", worker=0, reason="reload") == 1


# -- signals ---------------------------------------------------------------------------------------------


def test_sighup_reloads(daemon: Start, file: Path) -> None:
    running = daemon(config(ONE))
    file.write_text(config(ONE, TWO))
    running.send(signal.SIGHUP)
    running.wait_for("reloaded: generation 2 serves")
    assert {row["listener"] for row in running.ask("status")["listeners"]} == {"one", "two"}


def test_sighup_during_a_reload_makes_one_more_with_the_file_as_it_is_then(
    daemon: Start, file: Path, tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(
        IMPORTS + f"while os.path.exists({str(tmp_path / 'wait')!r}):\n    time.sleep(0.005)\n"
        "class Slow(gaiod.Handler):\n    pass\n"
    )
    running = daemon(config(ONE))
    (tmp_path / "wait").touch()
    file.write_text(config(ONE, '  slow: {bind: "127.0.0.1:0", handler: ./slow.py}\n'))
    running.send(signal.SIGHUP)
    wait_until(lambda: running.ask("status")["state"] == "reloading", "the reload's beginning")
    file.write_text(config(ONE, TWO))
    for _ in range(5):
        running.send(signal.SIGHUP)
    assert echoes(running.address("one"))
    (tmp_path / "wait").unlink()
    running.wait_for("reloaded: generation 3 serves")
    assert {row["listener"] for row in running.ask("status")["listeners"]} == {"one", "two"}
    assert running.ask("status")["generation"] == 3


def test_daemon_stops_in_order_during_a_reload(daemon: Start, file: Path, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(IMPORTS + "time.sleep(3600)\nclass Slow(gaiod.Handler):\n    pass\n")
    running = daemon(config(ONE))
    file.write_text(config(ONE, '  slow: {bind: "127.0.0.1:0", handler: ./slow.py}\n'))
    running.send(signal.SIGHUP)
    wait_until(lambda: running.ask("status")["state"] == "reloading", "the reload's beginning")
    with connect(running.address("one")) as sock:
        running.send(signal.SIGTERM)
        assert is_ended(sock)
    assert running.wait() == 0
    assert "Traceback" not in running.log()
