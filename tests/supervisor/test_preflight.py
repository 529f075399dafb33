"""The configuration is read in a process of its own, of which nothing stays."""

import os
import sys
import threading
from pathlib import Path

import pytest
from e2e.support.handlers import IMPORTS, SHOUT, beside

from gaiod.config import load
from gaiod.supervisor.preflight import PreflightFailed, read_settings

MINE = "class Mine(gaiod.Handler):\n    pass\n"


def _write(folder: Path, handler: str, more: str = "") -> Path:
    (folder / "mine.py").write_text(IMPORTS + handler)
    path = folder / "gaiod.yaml"
    path.write_text(beside(more))
    return path


def _status(path: Path) -> int:
    with pytest.raises(PreflightFailed) as failure:
        read_settings(path)
    return failure.value.status


def test_settings_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SHOUT)
    path = tmp_path / "gaiod.yaml"
    path.write_text(beside("    with: {prefix: '\u00fc', pause: 250ms}\n    idle_timeout: 1m\n    keepalive: false\n"))
    settings = read_settings(path)
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
    assert len(read_settings(path).listeners) == 2000


def test_nothing_of_a_handlers_module_stays(tmp_path: Path) -> None:
    handler = (
        "import threading\nos.environ['LEFT_BEHIND'] = '1'\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    path = _write(tmp_path, handler + MINE)
    threads, modules = threading.active_count(), set(sys.modules)
    read_settings(path)
    assert threading.active_count() == threads
    assert not [name for name in set(sys.modules) - modules if "mine" in name]
    assert "LEFT_BEHIND" not in os.environ


def test_file_is_read_anew_each_time(tmp_path: Path) -> None:
    """A reload has to see what has changed, the handler's code included."""
    path = _write(tmp_path, MINE)
    read_settings(path)
    _write(tmp_path, "raise RuntimeError\n")
    assert _status(path) == 78
    _write(tmp_path, MINE, "    connections_max: 5\n")
    assert read_settings(path).listeners[0].connections_max == 5


def test_status_is_78_and_the_problems_are_told_when_the_file_is_wrong(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = _write(tmp_path, MINE, "    idle_timeout: 3\n    nonsense: 1\n")
    assert _status(path) == 78
    out, err = capfd.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{path}:6:19: listeners.mine.idle_timeout: 3 has no unit")
    assert lines[1].startswith(f"{path}:7:5: listeners.mine.nonsense: unknown key")


def test_status_is_78_when_there_is_no_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert _status(tmp_path / "nothing.yaml") == 78
    assert "No such file or directory" in capfd.readouterr().err


def test_status_is_78_when_a_handler_exits_at_import(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The operator has to act, so it is not a bug of ours."""
    assert _status(_write(tmp_path, "raise SystemExit(0)\n")) == 78
    assert "SystemExit" in capfd.readouterr().err


@pytest.mark.parametrize("handler", ["os.kill(os.getpid(), signal.SIGKILL)\n", "os._exit(5)\n"])
def test_status_is_70_when_the_import_kills_its_process(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], handler: str
) -> None:
    assert _status(_write(tmp_path, handler)) == 70
    assert capfd.readouterr().err, "not a word about why"


def test_status_is_never_0_when_the_import_ends_its_process(tmp_path: Path) -> None:
    assert _status(_write(tmp_path, "os._exit(0)\n")) != 0


def test_nothing_is_left_open_and_no_process_is_left(tmp_path: Path) -> None:
    """The descriptors are counted after every test."""
    read_settings(_write(tmp_path, MINE))
    _status(_write(tmp_path, "raise RuntimeError\n"))
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
