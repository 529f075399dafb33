"""The terminal: keys, and that it is as it was afterwards."""

import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest
from core.support.waiting import LIMIT_S

from gaiod.console.top.terminal import RESIZED, Terminal


class _Stdin:
    """Standard input, as the test wants it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The other end of what is standard input."""
    keyboard, fd = pty.openpty()
    monkeypatch.setattr(sys, "stdin", _Stdin(fd))
    try:
        yield keyboard
    finally:
        os.close(keyboard)
        os.close(fd)


def test_key_is_told_at_once_and_without_enter(keyboard: int) -> None:
    with Terminal() as terminal:
        os.write(keyboard, b"s")
        assert terminal.wait(LIMIT_S) == "s"
        assert terminal.wait(0) == ""


def test_arrow_keys_are_no_keys(keyboard: int) -> None:
    with Terminal() as terminal:
        os.write(keyboard, b"\x1b[A")
        assert terminal.wait(LIMIT_S) == ""


def test_other_size_is_told(keyboard: int) -> None:
    with Terminal() as terminal:
        os.kill(os.getpid(), signal.SIGWINCH)
        assert terminal.wait(LIMIT_S) == RESIZED
        assert terminal.wait(0) == ""


@pytest.mark.parametrize("error", [None, RuntimeError("a bug"), SystemExit(1)])
def test_terminal_is_left_as_it_was_found(keyboard: int, error: BaseException | None) -> None:
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGTSTP, signal.SIGWINCH)]
    try:
        with Terminal():
            assert termios.tcgetattr(fd)[3] & (termios.ICANON | termios.ECHO) == 0
            assert signal.getsignal(signal.SIGTSTP) is signal.SIG_IGN
            if error is not None:
                raise error
    except (RuntimeError, SystemExit) as raised:
        assert raised is error
    assert termios.tcgetattr(fd) == before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGTSTP, signal.SIGWINCH)] == handlers


def test_sigterm_ends_it_with_everything_restored(keyboard: int) -> None:
    before = termios.tcgetattr(sys.stdin.fileno())
    with pytest.raises(SystemExit) as ended, Terminal() as terminal:
        os.kill(os.getpid(), signal.SIGTERM)
        terminal.wait(LIMIT_S)
    assert ended.value.code == 128 + signal.SIGTERM
    assert termios.tcgetattr(sys.stdin.fileno()) == before


def test_without_a_terminal_there_are_no_keys() -> None:
    code = "from gaiod.console.top.terminal import Terminal\nwith Terminal() as t: print(repr(t.wait(0)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    assert done.stdout == "''\n"
