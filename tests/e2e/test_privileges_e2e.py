"""Started by root, run by nobody: what root alone can do is done before, and works ever after."""

import os
import signal
import socket
import ssl
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import click
import pytest
from core.support.authority import authority
from core.support.tls_servers import tls_server
from supervisor.support.privileges import NOBODY, OTHER, as_user, needs_root

import gaiod
from e2e.support.clients import connect, echoes, exchange
from e2e.support.daemons import ECHO, Daemon
from e2e.support.elsewhere import python_for_everybody
from e2e.support.procfs import children_of, session_of, status_of
from e2e.support.starting import Start, starter
from e2e.support.tls_peers import written
from e2e.support.waiting import wait_until

pytestmark = needs_root

RUN = ("-m", "gaiod", "serve")

CONFIG = Path(__file__).parents[2] / "config"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may look into: the user to be reads the configuration at a reload."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def _is_everybodys() -> bool:
    """Tell whether nobody can run this Python with gaiod: neither is in a folder of root's."""
    needed = (sys.executable, os.path.realpath(sys.executable), gaiod.__file__, click.__file__)
    return bool(as_user(NOBODY, lambda: all(os.access(path, os.R_OK) for path in needed)))


@pytest.fixture(scope="module")
def python() -> Iterator[Path]:
    """A Python that nobody can run, too."""
    if os.geteuid() != 0 or _is_everybodys():
        yield Path(sys.executable)
        return
    with python_for_everybody() as program:
        yield program


@pytest.fixture
def daemon(folder: Path, python: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """A starter of daemons in that folder."""
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(python.parent.parent / "lib"))
    with starter(folder) as start:
        yield start


@pytest.fixture
def port() -> int:
    """A port that only root may bind."""
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    for port in range(first - 1, 0, -1):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    pytest.skip("this machine gives every port to everybody, or has none free")


def config(port: int, *more: str, top: str = "") -> str:
    """Return a configuration with a privileged port."""
    listeners = "".join(more)
    return (
        f'{top}user: nobody\nmetrics: {{listen: "127.0.0.1:0"}}\n'
        f'listeners:\n  low: {{bind: "127.0.0.1:{port}", handler: echo}}\n{listeners}'
    )


def _assert_unprivileged(running: Daemon, gid: int = NOBODY.pw_gid) -> None:
    found = [status_of(pid) for pid in session_of(running.pid)]
    alive = [status for status in found if status]  # the old worker may end meanwhile
    assert len(alive) >= 2
    for status in alive:
        assert status["Uid"].split() == [str(NOBODY.pw_uid)] * 4
        assert status["Gid"].split() == [str(gid)] * 4
        assert "0" not in status["Groups"].split()
        assert status["NoNewPrivs"] == "1"
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0


def test_supervisor_and_workers_are_nobody_and_serve_a_privileged_port(daemon: Start, port: int) -> None:
    running = daemon(config(port, top="workers: 2\n"), command=RUN)
    assert len(children_of(running.pid)) == 2
    _assert_unprivileged(running)
    for _ in range(10):
        assert echoes(f"127.0.0.1:{port}")


def test_group_is_the_one_that_is_named(daemon: Start, port: int) -> None:
    running = daemon(config(port, top="group: daemon\n"), command=RUN)
    _assert_unprivileged(running, OTHER.pw_gid)


def test_key_that_only_root_can_read_works_in_workers_that_start_later(daemon: Start, folder: Path, port: int) -> None:
    """A key that is shown to a server: each worker has its text, and none its file."""
    own = authority("Of clients").sign("DNS:gate", usage="clientAuth")
    secret = folder / "secret"
    secret.mkdir(mode=0o700)
    files = written(secret, "own", own)
    with tls_server() as server:
        server._context.load_verify_locations(cadata=authority("Of clients").text)
        server._context.verify_mode = ssl.CERT_REQUIRED
        tls = f"{{verify: false, certificate: {{chain: {files.chain}, key: {files.key}}}}}"
        address = f"127.0.0.1:{server.address[1]}"
        servers = f"servers: [{{address: '{address}', tls: {tls}}}]"
        more = f"  db: {{bind: '127.0.0.1:0', handler: proxy, with: {{{servers}}}}}\n"
        running = daemon(config(port, more), command=RUN)
        _assert_unprivileged(running)
        with connect(running.address("db")) as sock:
            assert exchange(sock, b"hello") == b"hello"
        before = running.workers
        os.kill(before[0], signal.SIGKILL)
        wait_until(lambda: running.workers not in (before, []), "another worker")
        with connect(running.address("db")) as sock:
            assert exchange(sock, b"again") == b"again"


def test_reload_keeps_the_privileged_port_and_its_connections(daemon: Start, folder: Path, port: int) -> None:
    running = daemon(config(port), command=RUN)
    with connect(f"127.0.0.1:{port}") as sock:
        assert exchange(sock, b"before") == b"before"
        (folder / "gaiod.yaml").write_text(config(port, '  more: {bind: "127.0.0.1:0", handler: echo}\n'))
        assert running.ask("reload")["generation"] == 2
        assert exchange(sock, b"after") == b"after"
    assert echoes(f"127.0.0.1:{port}")
    _assert_unprivileged(running)


def test_connections_are_handed_over_without_any_right(daemon: Start, port: int) -> None:
    """The kernel counts descriptors that are on their way, for those who have no CAP_SYS_RESOURCE."""
    running = daemon(config(port), command=RUN)
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(f"127.0.0.1:{port}")) for _ in range(300)]
        for number, client in enumerate(clients):
            assert exchange(client, b"%03d" % number) == b"%03d" % number
        assert running.gaiod("workers", "restart").returncode == 0
        running.wait_for("handed 300 of 300 connections over")
        for number, client in enumerate(clients):
            assert exchange(client, b"%03d" % number) == b"%03d" % number
    _assert_unprivileged(running)


def test_reload_that_needs_a_right_that_is_gone_is_refused_with_advice(daemon: Start, folder: Path, port: int) -> None:
    running = daemon(config(port), command=RUN)
    with connect(f"127.0.0.1:{port}") as sock:
        assert exchange(sock, b"before") == b"before"
        taken = next(other for other in range(port - 1, 0, -1) if _is_free(other))
        more = f'  more: {{bind: "127.0.0.1:{taken}", handler: echo}}\n'
        (folder / "gaiod.yaml").write_text(config(port, more))
        done = running.gaiod("reload")
        assert done.returncode == 71
        assert "ports below 1024 and foreign folders need a privilege" in done.stderr
        assert exchange(sock, b"after") == b"after"


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def test_upgrade_keeps_the_privileged_port(daemon: Start, port: int) -> None:
    running = daemon(config(port), command=RUN)
    running.ask("upgrade")
    assert running.wait() == 0, running.log()
    assert echoes(f"127.0.0.1:{port}")
    _assert_unprivileged(running)
    os.kill(running.ask("status")["pid"], 15)
    wait_until(lambda: not session_of(running.pid), "the new daemon's end")
    assert "Traceback" not in running.log()


def test_unix_sockets_belong_to_nobody(daemon: Start, folder: Path) -> None:
    path = folder / "echo.sock"
    text = (
        f'user: nobody\nmetrics: {{listen: "127.0.0.1:0"}}\nlisteners: {{a: {{bind: "unix:{path}", handler: echo}}}}\n'
    )
    running = daemon(text, command=RUN)
    for each in (path, Path(running.control)):
        assert (each.stat().st_uid, each.stat().st_gid) == (NOBODY.pw_uid, NOBODY.pw_gid)
    assert stat.S_IMODE(os.stat(running.control).st_mode) == 0o600
    assert echoes(f"unix:{path}")
    assert running.ask("status")["state"] == "serving"


def test_root_without_a_user_is_refused(daemon: Start) -> None:
    running = daemon(ECHO, command=RUN, ready=False)
    assert running.wait() == 77
    assert "set user: in the configuration, or add --allow-root" in running.log()
    assert "Traceback" not in running.log()


def test_copy_of_the_packaged_default_is_a_configuration_of_ones_own(daemon: Start) -> None:
    running = daemon((CONFIG / "gaiod.yaml").read_text(), command=RUN, ready=False)
    assert running.wait() == 77
    assert "set user: in the configuration, or add --allow-root" in running.log()


def test_configuration_that_others_can_write_is_refused(daemon: Start, folder: Path) -> None:
    (folder / "others").mkdir()
    os.chmod(folder / "others", 0o777)
    running = daemon(ECHO, name="others/gaiod.yaml", ready=False)
    assert running.wait() == 77
    assert "root would execute what others can change" in running.log()
