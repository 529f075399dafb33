"""Unix sockets and their files: what is taken over, what is left alone, and what is made anew."""

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from supervisor.support.users import as_nobody, root_only

from gaiod.process.socket_files import UnixListener


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a socket is to listen."""
    return tmp_path / "x.sock"


@pytest.fixture
def listener(path: Path) -> Iterator[UnixListener]:
    """A socket that listens there."""
    with UnixListener.at(str(path), backlog=5) as sock:
        yield sock


def is_reached(path: Path, sock: socket.socket) -> bool:
    """Tell whether who connects to the file is a client of the socket."""
    sock.setblocking(False)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        try:
            sock.accept()[0].close()
        except BlockingIOError:
            return False
    return True


# -- taking a path -------------------------------------------------------------------------------------------


def test_file_that_a_killed_process_left_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with UnixListener.at(str(path), backlog=5) as sock:
        assert is_reached(path, sock)


@root_only
def test_socket_that_may_not_be_asked_is_left_alone_and_the_error_says_so() -> None:
    """Whether anybody listens there cannot be known, so it is not said."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as dead:
        path = Path(folder, "x.sock")
        path.parent.chmod(0o755)
        dead.bind(str(path))
        path.chmod(0o600)
        with as_nobody(), pytest.raises(PermissionError):
            UnixListener.at(str(path), backlog=5)
        assert path.exists()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_living_socket_of_whatever_kind_is_left_alone(path: Path, kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_UNIX, kind) as living:
        living.bind(str(path))
        if kind != socket.SOCK_DGRAM:
            living.listen()
        inode = path.stat().st_ino
        with pytest.raises(OSError, match="Address already in use"):
            UnixListener.at(str(path), backlog=5)
        assert path.stat().st_ino == inode


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling link", "fifo"])
def test_what_is_no_socket_is_left_alone(path: Path, tmp_path: Path, kind: str) -> None:
    match kind:
        case "file":
            path.write_text("precious")
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case _:
            path.symlink_to(tmp_path / "other")
            if kind == "link":
                (tmp_path / "other").write_text("precious")
    before = path.lstat()
    with pytest.raises(OSError, match="no socket"):
        UnixListener.at(str(path), backlog=5)
    assert os.path.samestat(path.lstat(), before)


def test_no_file_is_left_where_it_cannot_listen(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(sock: UnixListener, backlog: int) -> None:
        raise OSError("no")

    monkeypatch.setattr(UnixListener, "listen", fail)
    with pytest.raises(OSError, match="no"):
        UnixListener.at(str(path), backlog=5)
    assert not path.exists()


def test_mode_can_change_and_is_that_of_the_file_that_is_made_anew(listener: UnixListener, path: Path) -> None:
    listener.change_mode(0o660)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    path.unlink()
    after = listener.renewed()
    assert after is not None
    with after:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_mode_of_another_file_is_left_alone(listener: UnixListener, path: Path) -> None:
    path.unlink()
    path.write_text("another's")
    before = path.stat().st_mode
    listener.change_mode(0o666)
    assert path.stat().st_mode == before


# -- leaving it ----------------------------------------------------------------------------------------------


def test_file_goes_with_its_socket(listener: UnixListener, path: Path) -> None:
    listener.remove_file()
    assert not path.exists()


def test_file_that_is_anothers_by_now_stays(listener: UnixListener, path: Path) -> None:
    path.unlink()
    with UnixListener.at(str(path), backlog=5) as other:
        listener.remove_file()
        assert is_reached(path, other)


def test_copy_of_a_socket_has_no_say_about_its_file(listener: UnixListener, path: Path) -> None:
    with listener.dup() as copy:
        assert not isinstance(copy, UnixListener)
        assert is_reached(path, copy)


# -- looking after it ----------------------------------------------------------------------------------------


def test_nothing_is_made_anew_while_the_file_is_there(listener: UnixListener, caplog: pytest.LogCaptureFixture) -> None:
    assert listener.renewed() is None
    assert not caplog.messages


@pytest.mark.parametrize("mode", [0o600, 0o755])
def test_file_that_was_removed_is_made_anew_with_its_mode(
    path: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    with ExitStack() as stack:
        sock = stack.enter_context(UnixListener.at(str(path), mode=mode, backlog=5))
        path.unlink()
        after = sock.renewed()
        assert after is not None
        stack.enter_context(after)
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert is_reached(path, after)
        assert not is_reached(path, sock)
    assert caplog.messages == [f"{path}: the file was removed; it is recreated, and clients can connect again"]


def test_other_file_in_its_place_is_told_of_once_and_left_alone(
    listener: UnixListener, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.unlink()
    path.write_text("another's")
    for _ in range(3):
        assert listener.renewed() is None
    (said,) = caplog.messages
    assert said.startswith(f"{path}: another file is there now, so clients cannot reach this daemon by it")
    assert path.read_text() == "another's"
    path.unlink()
    after = listener.renewed()
    assert after is not None, "once it is gone, there is room again"
    after.close()


def test_file_that_cannot_be_made_anew_is_told_of_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with UnixListener.at(str(folder / "x.sock"), backlog=5) as sock:
        (folder / "x.sock").unlink()
        folder.rmdir()
        for _ in range(3):
            assert sock.renewed() is None
        assert len(caplog.messages) == 1
        assert "cannot be recreated: No such file or directory" in caplog.messages[0]
        folder.mkdir()
        after = sock.renewed()
        assert after is not None
        after.close()


def test_socket_that_was_handed_over_is_looked_after_as_its_own(listener: UnixListener, path: Path) -> None:
    with UnixListener(os.dup(listener.fileno()), mode=0o600) as taken:
        assert (taken.path, taken.inode) == (str(path), listener.inode)
        path.unlink()
        after = taken.renewed()
        assert after is not None
        with after:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
