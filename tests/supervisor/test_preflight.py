"""The configuration is read in a process of its own, of which nothing stays."""

import errno
import gc
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from core.support.waiting import LIMIT_S, MOMENT_S, TIME_UNIT
from e2e.support.handlers import IMPORTS, SHOUT, beside
from e2e.support.procfs import codes_of

from gaiod import Watcher
from gaiod.config import load
from gaiod.process.dispatch import dispatch
from gaiod.settings import AccessRule, ListenerSettings, ProxyProtocolSettings, Settings, TlsSettings
from gaiod.supervisor import preflight
from gaiod.supervisor.preflight import (
    Checked,
    Preflight,
    PreflightFailed,
    open_to_all,
    read_configuration,
    tickets_of_one,
)

MINE = "class Mine(gaiod.Handler):\n    pass\n"


def _write(folder: Path, handler: str, more: str = "") -> Path:
    (folder / "mine.py").write_text(IMPORTS + handler)
    path = folder / "gaiod.yaml"
    path.write_text(beside(more))
    return path


def _failure(path: Path) -> PreflightFailed:
    with pytest.raises(PreflightFailed) as failure:
        read_configuration(path)
    return failure.value


def test_configuration_that_no_process_can_be_started_for_is_not_to_blame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    path = _write(tmp_path, MINE)
    monkeypatch.setattr(os, "fork", fail)
    failure = _failure(path)
    assert failure.status == 71
    assert str(failure).startswith(f"{path}: no process can be started to read it: Resource temporarily unavailable; ")
    assert "ulimit -u" in str(failure)


def test_settings_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SHOUT)
    path = tmp_path / "gaiod.yaml"
    path.write_text(beside("    with: {prefix: '\u00fc', pause: 250ms}\n    idle_timeout: 1m\n    keepalive: false\n"))
    settings = read_configuration(path).settings
    assert settings == load(path)
    (listener,) = settings.listeners
    assert listener.handler == str(tmp_path / "mine.py")
    assert (listener.options, listener.idle_timeout_s, listener.keepalive_s) == (
        {"prefix": "\u00fc", "pause": 0.25},
        60.0,
        None,
    )


def test_settings_arrive_when_they_are_larger_than_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "gaiod.yaml"
    listeners = "".join(f'  l{number}: {{bind: "127.0.0.1:{number}", handler: echo}}\n' for number in range(1, 2001))
    path.write_text(f"listeners:\n{listeners}")
    assert len(read_configuration(path).settings.listeners) == 2000


def test_nothing_of_a_handlers_module_stays(tmp_path: Path) -> None:
    handler = (
        "import threading\nos.environ['LEFT_BEHIND'] = '1'\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    path = _write(tmp_path, handler + MINE)
    threads, modules = threading.active_count(), set(sys.modules)
    read_configuration(path)
    assert threading.active_count() == threads
    assert not [name for name in set(sys.modules) - modules if "mine" in name]
    assert "LEFT_BEHIND" not in os.environ


def test_file_is_read_anew_each_time(tmp_path: Path) -> None:
    """A reload has to see what has changed, the handler's code included."""
    path = _write(tmp_path, MINE)
    read_configuration(path)
    _write(tmp_path, "raise RuntimeError\n")
    assert _failure(path).status == 78
    _write(tmp_path, MINE, "    connections_max: 5\n")
    assert read_configuration(path).settings.listeners[0].connections_max == 5


def test_status_is_78_and_the_problems_are_told_when_the_file_is_wrong(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """They are not printed: a reload tells them to who asked for it, and to the log."""
    path = _write(tmp_path, MINE, "    idle_timeout: 3\n    nonsense: 1\n")
    failure = _failure(path)
    assert failure.status == 78
    assert capfd.readouterr() == ("", "")
    lines = str(failure).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{path}:6:19: listeners.mine.idle_timeout: 3 has no unit")
    assert lines[1].startswith(f"{path}:7:5: listeners.mine.nonsense: unknown key")


def test_status_is_78_when_there_is_no_file(tmp_path: Path) -> None:
    failure = _failure(tmp_path / "nothing.yaml")
    assert failure.status == 78
    assert "No such file or directory" in str(failure)


def test_status_is_78_when_a_handler_exits_at_import(tmp_path: Path) -> None:
    """The operator has to act, so it is not a bug of ours."""
    failure = _failure(_write(tmp_path, "raise SystemExit(0)\n"))
    assert failure.status == 78
    assert "SystemExit" in str(failure)


AT_IMPORT = "{}\n"
IN_OPTIONS = """
@dataclass
class Options:
    def __post_init__(self):
        {}

class Mine(gaiod.Handler):
    Options = Options
"""
IN_INIT = "class Mine(gaiod.Handler):\n    def __init__(self, options):\n        {}\n"

PHASES = [(AT_IMPORT, "importing {}"), (IN_OPTIONS, "checking its options"), (IN_INIT, "making its handler")]
"""Where a handler's own code runs, and what that is called."""


@pytest.mark.parametrize(("where", "phase"), PHASES, ids=["import", "options", "init"])
@pytest.mark.parametrize(
    ("does", "how"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "by SIGKILL"),
        ("os._exit(5)", "with exit status 5"),
        ("os._exit(0)", "with exit status 0"),
    ],
)
def test_status_is_70_and_the_place_is_told_when_a_handler_ends_the_process(
    tmp_path: Path, where: str, phase: str, does: str, how: str
) -> None:
    path = _write(tmp_path, where.format(does))
    failure = _failure(path)
    assert failure.status == 70
    phase = phase.format(tmp_path / "mine.py")
    assert str(failure) == f"{path}: listener mine: {phase} ended the process {how}; correct the handler"


@pytest.mark.parametrize(("where", "phase"), PHASES, ids=["import", "options", "init"])
def test_status_is_70_and_the_place_is_told_when_a_handler_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, phase: str
) -> None:
    monkeypatch.setattr(preflight, "TIMEOUT_S", TIME_UNIT)
    path = _write(tmp_path, where.format("time.sleep(3600)"))
    failure = _failure(path)
    assert failure.status == 70
    phase = phase.format(tmp_path / "mine.py")
    assert str(failure).startswith(f"{path}: listener mine: {phase} took longer than ")
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_answer_is_taken_though_a_process_that_the_handler_left_behind_goes_on(tmp_path: Path) -> None:
    """It holds the other end open, so the end of the stream never comes."""
    left = (
        "child = os.fork()\nif child == 0:\n    time.sleep(60)\n    os._exit(0)\nopen('left', 'w').write(str(child))\n"
    )
    path = _write(tmp_path, f"os.chdir({str(tmp_path)!r})\n{left}{MINE}")
    began_s = time.monotonic()
    assert read_configuration(path).settings.listeners
    assert time.monotonic() - began_s < LIMIT_S
    os.kill(int((tmp_path / "left").read_text()), signal.SIGKILL)


def test_nothing_is_left_open_and_no_process_is_left(tmp_path: Path) -> None:
    """The descriptors are counted after every test."""
    read_configuration(_write(tmp_path, MINE))
    _failure(_write(tmp_path, "raise RuntimeError\n"))
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.fixture
def no_collection() -> Iterator[None]:
    """What is left to the collection of garbage stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("handler", ["raise RuntimeError\n", "os._exit(0)\n", "time.sleep(3600)\n"])
def test_code_is_closed_at_once_when_reading_fails(
    watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handler: str
) -> None:
    """The supervisor runs for months, and has little garbage to collect."""
    path = _write(tmp_path, handler)
    if "sleep" in handler:
        monkeypatch.setattr(preflight, "TIMEOUT_S", MOMENT_S)
    assert codes_of(os.getpid()) == 0
    failures = [_failure(path), _read(watcher, path)]  # kept, with the frames that they came through
    assert codes_of(os.getpid()) == 0
    assert all(isinstance(each, PreflightFailed) for each in failures)


@pytest.mark.usefixtures("no_collection")
def test_code_is_closed_at_once_when_reading_is_given_up_or_cannot_begin(
    watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    path = _write(tmp_path, "time.sleep(3600)\n")
    Preflight(watcher, path, lambda read: None).cancel()
    assert codes_of(os.getpid()) == 0
    monkeypatch.setattr(os, "fork", fail)
    failure = _failure(path)
    assert codes_of(os.getpid()) == 0
    assert failure.status == 71


@pytest.mark.usefixtures("no_collection")
def test_garbage_of_the_supervisor_is_not_collected_by_who_reads(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What it would close has numbers that are others' in that process."""

    class Garbage:
        def __init__(self) -> None:
            self.own = self
            weakref.finalize(self, os.write, 2, b"collected")

    path = _write(tmp_path, "import gc\ngc.collect()\nos.write(2, b'read')\n" + MINE)
    Garbage()
    read_configuration(path)
    assert capfd.readouterr().err == "read"
    gc.collect()


# -- while the daemon serves -----------------------------------------------------------------------------


def _read(watcher: Watcher, path: Path) -> Checked | PreflightFailed:
    """Read it without waiting, as a reload does."""
    read: list[Checked | PreflightFailed] = []
    Preflight(watcher, path, read.append)
    until_s = time.monotonic() + LIMIT_S
    while not read:
        assert time.monotonic() < until_s
        dispatch(watcher.wait_io(LIMIT_S))
    dispatch(watcher.wait_io(0))
    (outcome,) = read
    return outcome


def test_reading_without_waiting_gives_the_same(watcher: Watcher, tmp_path: Path) -> None:
    path = _write(tmp_path, MINE)
    read, waited_for = _read(watcher, path), read_configuration(path)
    assert isinstance(read, Checked)
    assert read.settings == waited_for.settings
    assert read.code.versions == waited_for.code.versions
    assert os.pread(read.code.fd, 1 << 20, 0) == os.pread(waited_for.code.fd, 1 << 20, 0)


def test_reading_without_waiting_fails_with_the_same(watcher: Watcher, tmp_path: Path) -> None:
    path = _write(tmp_path, MINE, "    nonsense: 1\n")
    failed, waited_for = _read(watcher, path), _failure(path)
    assert isinstance(failed, PreflightFailed)
    assert (failed.status, str(failed)) == (waited_for.status, str(waited_for))


def test_reading_that_takes_too_long_is_ended(
    watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "TIMEOUT_S", MOMENT_S)
    failed = _read(watcher, _write(tmp_path, "time.sleep(3600)\n" + MINE))
    assert isinstance(failed, PreflightFailed)
    assert failed.status == 70
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# -- who may come in -------------------------------------------------------------------------------------


RULE = AccessRule(False, "all")


@pytest.mark.parametrize(
    ("bind", "guards", "is_open"),
    [
        ("0.0.0.0:7000", {}, True),
        ("[::]:7000", {}, True),
        ("8.8.8.8:7000", {}, True),
        ("[2606:4700::1]:7000", {}, True),
        ("127.0.0.1:7000", {}, False),
        ("10.1.2.3:7000", {}, False),
        ("[fd00::1]:7000", {}, False),
        ("unix:/run/app.sock", {}, False),
        ("systemd:app.socket", {}, False),
        ("0.0.0.0:7000", {"access": (RULE,)}, False),
        ("0.0.0.0:7000", {"proxy_protocol": ProxyProtocolSettings(("10.0.0.0/8",))}, False),
        ("0.0.0.0:7000", {"tls": TlsSettings(())}, False),
    ],
)
def test_listener_that_serves_whoever_reaches_it_is_warned_of(bind: str, guards: dict[str, Any], is_open: bool) -> None:
    settings = Settings(listeners=(ListenerSettings(name="app", bind=bind, handler="echo", **guards),))
    said = open_to_all(settings)
    assert [f"listener app is on {bind} with neither tls nor access" in text for text in said] == [True] * is_open


@pytest.mark.parametrize("is_shared", [True, False])
def test_what_is_said_of_tickets_that_one_worker_gives(monkeypatch: pytest.MonkeyPatch, *, is_shared: bool) -> None:
    monkeypatch.setattr("gaiod.supervisor.preflight.shares_tickets", lambda: is_shared)
    made = {"plain": None, "app": TlsSettings(()), "none": TlsSettings((), tickets=None)}
    listeners = [ListenerSettings(name, "127.0.0.1:0", "echo", tls=tls) for name, tls in made.items()]
    said = tickets_of_one(Settings(tuple(listeners)))
    assert len(said) == (not is_shared)
    assert all(text.startswith("TLS clients of app can resume their sessions with one worker only") for text in said)
