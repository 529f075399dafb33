"""Listening sockets: opened where the configuration says, or refused with advice."""

import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from core.support.sockets import has_ipv6
from core.support.waiting import LIMIT_S, MOMENT_S

from gaiod.addresses import Address, parse_address
from gaiod.process.socket_files import UnixListener
from gaiod.supervisor.sockets.bind import BindError, SocketOptions, bound_address, close_listener, open_listener
from supervisor.support.users import as_nobody

Open = Callable[..., socket.socket]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens listeners, and closes them with the test."""
    with ExitStack() as stack:

        def open_one(bind: str | Address, **options: object) -> socket.socket:
            address = parse_address(str(bind), listen=True)
            sock = open_listener("listener test", address, SocketOptions(**options))  # type: ignore[arg-type]
            return stack.enter_context(sock)

        yield open_one


def _file(path: Path) -> Address:
    return Address("unix", path=str(path))


def _accepted(listener: socket.socket) -> Iterator[socket.socket]:
    with socket.socket(listener.family) as client:
        client.connect(listener.getsockname())
        connection, _ = listener.accept()
        with connection:
            yield connection


accepted = contextmanager(_accepted)


def _refusal(address: Address) -> str:
    with pytest.raises(BindError) as refused:
        open_listener("listener test", address, SocketOptions()).close()
    message = str(refused.value)
    assert message.startswith(f"listener test: cannot listen on {address}: ")
    return message


# -- opening -------------------------------------------------------------------------------------------


def test_listener_accepts_over_ipv4_and_tells_its_port(opened: Open) -> None:
    listener = opened("127.0.0.1:0")
    assert str(bound_address(listener)) == f"127.0.0.1:{listener.getsockname()[1]}"
    with accepted(listener) as connection:
        assert connection.family == socket.AF_INET


def test_listener_accepts_over_ipv6_and_tells_its_port_behind_brackets(opened: Open) -> None:
    if not has_ipv6():
        pytest.skip("no IPv6 on the loopback")
    listener = opened("[::1]:0")
    assert str(bound_address(listener)) == f"[::1]:{listener.getsockname()[1]}"
    with accepted(listener) as connection:
        assert connection.family == socket.AF_INET6


def test_every_ipv6_address_leaves_ipv4_to_another_listener(opened: Open) -> None:
    """`[::]:7000` and `0.0.0.0:7000` can both be configured, and mean what they say."""
    if not has_ipv6():
        pytest.skip("no IPv6 on the loopback")
    port = opened("[::]:0").getsockname()[1]
    assert str(bound_address(opened(f"0.0.0.0:{port}"))) == f"0.0.0.0:{port}"


def test_listener_accepts_on_a_unix_socket_and_its_file_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "echo.sock"
    listener = open_listener("listener test", _file(path), SocketOptions())
    assert str(bound_address(listener)) == f"unix:{path}"
    with accepted(listener) as connection:
        assert connection.family == socket.AF_UNIX
    assert stat.S_ISSOCK(path.stat().st_mode)
    close_listener(listener)
    assert not path.exists()


def test_close_is_quiet_when_somebody_has_removed_the_socket_file(tmp_path: Path) -> None:
    listener = open_listener("listener test", _file(tmp_path / "x"), SocketOptions())
    (tmp_path / "x").unlink()
    close_listener(listener)
    assert listener.fileno() == -1


def test_listener_is_not_inherited_by_programs_that_are_started(opened: Open) -> None:
    assert not os.get_inheritable(opened("127.0.0.1:0").fileno())


@pytest.mark.parametrize("nodelay", [True, False])
@pytest.mark.parametrize("keepalive_s", [None, 1.0, 77.0])
def test_connections_inherit_the_options(opened: Open, nodelay: bool, keepalive_s: float | None) -> None:
    with accepted(opened("127.0.0.1:0", nodelay=nodelay, keepalive_s=keepalive_s)) as connection:
        assert bool(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) == nodelay
        assert bool(connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) == (keepalive_s is not None)
        if keepalive_s is not None:
            names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            values = tuple(connection.getsockopt(socket.IPPROTO_TCP, name) for name in names)
            assert values == {1.0: (1, 1, 6), 77.0: (77, 12, 6)}[keepalive_s], "one lost probe ends no connection"


def test_backlog_is_what_the_kernel_lets_wait(opened: Open) -> None:
    listener = opened("127.0.0.1:0", backlog=3)
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    assert int.from_bytes(info[28:32], "little") == 3  # tcpi_sacked: what may wait


def test_port_can_be_taken_at_once_where_a_listener_closed_with_a_connection_open(opened: Open) -> None:
    listener = opened("127.0.0.1:0")
    address = bound_address(listener)
    with accepted(listener) as connection:
        connection.close()
        listener.close()
        assert bound_address(opened(address)) == address


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_socket_file_has_its_mode_from_the_first_moment_on(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """Whoever connects in between stays connected: what chmod() does later is too late."""
    seen = []

    def bind_and_look(sock: socket.socket, path: str) -> None:
        socket.socket.bind(sock, path)
        seen.append(stat.S_IMODE(os.stat(path).st_mode))

    monkeypatch.setattr(UnixListener, "bind", bind_and_look)
    before = os.umask(0o022)
    try:
        opened(f"unix:{tmp_path / 'x.sock'}", mode=mode)
        assert seen == [mode]
        assert os.umask(0o022) == 0o022, "the process's umask has changed"
    finally:
        os.umask(before)


# -- refusing ------------------------------------------------------------------------------------------


def test_address_in_use_is_refused_with_advice(opened: Open) -> None:
    message = _refusal(bound_address(opened("127.0.0.1:0")))
    assert "Address already in use; another process listens there: stop it (ss -ltnp shows it)" in message


def test_address_in_use_is_refused_when_the_kernel_notices_only_at_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two daemons that start together both bind (SO_REUSEADDR allows it); the second to listen fails."""
    with socket.socket() as rival:
        rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        rival.bind(("127.0.0.1", 0))

        class LosesTheRace(socket.socket):
            def bind(self, address: object) -> None:
                super().bind(address)  # type: ignore[arg-type]
                rival.listen()

        monkeypatch.setattr(socket, "socket", LosesTheRace)
        assert "Address already in use" in _refusal(Address("ipv4", *rival.getsockname()))


def test_address_of_another_machine_is_refused_with_advice() -> None:
    assert "this machine has no such address: ip address shows which it has" in _refusal(Address("ipv4", "192.0.2.1"))


def test_socket_path_that_is_too_long_is_refused_with_the_reason(tmp_path: Path) -> None:
    assert _refusal(_file(tmp_path / ("x" * 200))).endswith("AF_UNIX path too long; choose another address")


def test_folder_that_is_missing_is_refused_with_advice(tmp_path: Path) -> None:
    assert _refusal(_file(tmp_path / "no" / "x.sock")).endswith("No such file or directory; make the folder first")


def test_folder_that_is_a_file_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "make the folder first" in _refusal(_file(tmp_path / "file" / "x.sock"))


def test_folder_of_somebody_else_is_refused_with_advice(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    folder.chmod(0o500)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.owner() == folder.owner() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
    with as_nobody():
        assert "Permission denied; " in (message := _refusal(_file(folder / "x.sock")))
    assert "foreign folders need a privilege" in message


def test_privileged_port_is_refused_with_advice() -> None:
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
        first = int(file.read())
    if first <= 1:
        pytest.skip("this machine gives every port to everybody")
    with as_nobody():
        message = _refusal(Address("ipv4", "127.0.0.1", min(first - 1, 81)))
    assert "grant CAP_NET_BIND_SERVICE" in message


def test_refusal_leaves_nothing_open(opened: Open, tmp_path: Path) -> None:
    """The descriptors are counted after every test."""
    _refusal(bound_address(opened("127.0.0.1:0")))
    _refusal(_file(tmp_path / "no" / "x.sock"))
    assert not list(tmp_path.iterdir())


# -- socket files --------------------------------------------------------------------------------------


def test_socket_file_left_behind_is_replaced(opened: Open, tmp_path: Path) -> None:
    """A daemon that was killed could not tidy up."""
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    with accepted(opened(f"unix:{path}")) as connection:
        assert connection.fileno() >= 0


def test_socket_file_of_a_living_daemon_is_left_alone(opened: Open, tmp_path: Path) -> None:
    first = opened(f"unix:{tmp_path / 'x.sock'}")
    assert "Address already in use" in _refusal(_file(tmp_path / "x.sock"))
    with accepted(first) as connection:
        assert connection.fileno() >= 0


def test_socket_file_of_a_busy_daemon_is_left_alone_and_not_waited_for(opened: Open, tmp_path: Path) -> None:
    """With its queue full, a connection attempt waits for as long as it does not accept."""
    path = tmp_path / "x.sock"
    busy = opened(f"unix:{path}", backlog=1)
    with ExitStack() as stack:
        for _ in range(5):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect_ex(str(path))
        refusals: list[str] = []
        thread = threading.Thread(target=lambda: refusals.append(_refusal(_file(path))))
        thread.start()
        thread.join(LIMIT_S)
        waited = thread.is_alive()
        while thread.is_alive():
            busy.accept()[0].close()
            thread.join(MOMENT_S)
    assert not waited, "it waits for the other daemon"
    assert "Address already in use" in refusals[0]


def test_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    refusal = _refusal(_file(path))
    assert "File exists; what is there is no socket, and stays" in refusal
    assert "process" not in refusal
    assert path.read_text() == "data"
