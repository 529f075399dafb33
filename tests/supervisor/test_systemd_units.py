"""The units in deploy/systemd: systemd takes them, rates them, and they agree with gaiod and its defaults."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from core.support.processes import REPOSITORY, run_python
from core.support.waiting import LIMIT_S
from e2e.support.tools import tool

from gaiod.settings import ListenerSettings, Settings

FOLDER = REPOSITORY / "deploy" / "systemd"
SERVICE, SOCKET = FOLDER / "gaiod.service", FOLDER / "gaiod.socket"
DROP_INS = sorted(FOLDER.glob("drop-ins/*.conf"))

EXPOSURE_MAX = 1.5


def values(unit: Path, key: str) -> list[str]:
    """Return what a unit assigns to a key, in its order."""
    assignments = (line.partition("=") for line in unit.read_text().splitlines() if not line.startswith("#"))
    return [value for name, _, value in assignments if name == key]


def value(unit: Path, key: str) -> str:
    """Return the one thing that a unit assigns to a key."""
    (only,) = values(unit, key)
    return only


def seconds(unit: Path, key: str) -> float:
    return float(value(unit, key).removesuffix("s"))


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units where ExecStart's program exists, each drop-in in force if it is copied into `gaiod.service.d`."""
    for unit in (SERVICE, SOCKET):
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/gaiod/bin/gaiod", sys.executable))
    (tmp_path / "gaiod.service.d").mkdir()
    return tmp_path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [tool("systemd-analyze", "systemd"), "--no-pager", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=3 * LIMIT_S, check=False)


# -- what systemd says ---------------------------------------------------------------------------------


@pytest.mark.parametrize("drop_in", [None, *DROP_INS], ids=lambda path: path and path.stem)
def test_units_are_taken_without_a_complaint(installed: Path, drop_in: Path | None) -> None:
    if drop_in is not None:
        (installed / "gaiod.service.d" / drop_in.name).write_text(drop_in.read_text())
    done = analyze("verify", "--man=no", str(installed / SERVICE.name), str(installed / SOCKET.name))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_service_is_rated_as_safe() -> None:
    done = analyze("security", "--offline=yes", f"--threshold={round(10 * EXPOSURE_MAX)}", str(SERVICE))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Overall exposure level for gaiod.service: " in done.stdout


# -- what gaiod needs ----------------------------------------------------------------------------------


def test_stop_is_waited_for_as_long_as_draining_may_take() -> None:
    defaults = Settings(listeners=())
    assert seconds(SERVICE, "TimeoutStopSec") > defaults.stop_grace_s + defaults.drain_timeout_s + 5


def test_watchdog_is_slower_than_the_supervisors_own_look_at_its_workers() -> None:
    assert seconds(SERVICE, "WatchdogSec") > 2 * Settings(listeners=()).heartbeat_timeout_s


def test_descriptors_suffice_for_several_listeners() -> None:
    assert int(value(SERVICE, "LimitNOFILE")) > 4 * ListenerSettings("echo", "", "").connections_max


def test_start_is_repeated_unless_somebody_has_to_act_first() -> None:
    assert value(SERVICE, "Restart") == "on-failure"
    assert value(SERVICE, "RestartPreventExitStatus").split() == ["64", "77", "78"]
    assert not values(SERVICE, "ExecStartPre"), "its exit status does not count for RestartPreventExitStatus"


def test_reload_checks_first_what_is_served() -> None:
    program, _, _, config = value(SERVICE, "ExecStart").split()
    assert values(SERVICE, "ExecReload") == [f"{program} check {config}", f"{program} reload"]


def test_socket_unit_is_the_listener_that_its_comment_configures() -> None:
    comment = [line.removeprefix("#   ") for line in SOCKET.read_text().splitlines() if line.startswith("#   ")]
    config = yaml.safe_load("\n".join(line for line in comment if ":" in line and "systemctl" not in line))
    (listener,) = config["listeners"].values()
    assert listener["bind"] == f"systemd:{value(SOCKET, 'FileDescriptorName')}"


def test_socket_units_options_are_a_listeners_defaults() -> None:
    defaults = ListenerSettings("echo", "", "")
    assert int(value(SOCKET, "Backlog")) == defaults.backlog
    assert (value(SOCKET, "NoDelay") == "yes") == defaults.nodelay
    assert value(SOCKET, "KeepAlive") == "yes"
    assert seconds(SOCKET, "KeepAliveTimeSec") == defaults.keepalive_s


FORBID_EXECUTING_WHAT_IS_WRITTEN = """
import ctypes, sys
PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1
if ctypes.CDLL(None).prctl(PR_SET_MDWE, *map(ctypes.c_ulong, (REFUSE_EXEC_GAIN, 0, 0, 0))) != 0:
    sys.exit("this kernel is older than 6.3")
"""


def test_gaiod_works_where_memory_is_not_both_written_and_executed() -> None:
    """MemoryDenyWriteExecute=yes, by the system call that newer systemds use for it."""
    work = (
        "import gaiod.supervisor.supervisor, gaiod.config\n"
        "from gaiod.settings import Settings\n"
        "from gaiod.supervisor.host.privileges import drop\n"
        "drop(Settings(listeners=()))\n"  # calls through ctypes
        "print('works')"
    )
    done = run_python("-c", FORBID_EXECUTING_WHAT_IS_WRITTEN + work)
    if "this kernel is older" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.stdout == "works\n", done.stderr
