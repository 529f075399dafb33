"""`gaiod check FILE`: what an operator runs before a reload."""

import subprocess
import sys
from pathlib import Path

import pytest
from core.support.waiting import LIMIT_S

from e2e.support.handlers import IMPORTS, SHOUT, beside


def check(path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run it in `folder`."""
    command = [sys.executable, "-m", "gaiod", "check", str(path)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The path of a configuration that is not written yet."""
    return tmp_path / "gaiod.yaml"


def test_check_names_the_listeners_when_all_is_well(config: Path, tmp_path: Path) -> None:
    config.write_text(
        "listeners:\n  a: {bind: 127.0.0.1:7001, handler: echo}\n  b: {bind: 127.0.0.1:7002, handler: echo}\n"
    )
    done = check(config, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{config}: fine; listeners: a, b\n", "")


def test_check_warns_of_a_listener_that_serves_whoever_reaches_it(config: Path, tmp_path: Path) -> None:
    config.write_text("listeners: {app: {bind: 0.0.0.0:7001, handler: echo}}\n")
    done = check(config, tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{config}: fine; listeners: app\n")
    assert done.stderr == (
        f"{config}: warning: listener app is on 0.0.0.0:7001 with neither tls nor access, so whoever reaches it is "
        "served unencrypted; add one, or bind an address of your own network\n"
    )


def test_check_binds_nothing(config: Path, tmp_path: Path) -> None:
    """It runs beside the daemon that has the port."""
    config.write_text("listeners: {a: {bind: 192.0.2.1:7001, handler: echo}}\n")
    assert check(config, tmp_path).returncode == 0


def test_check_imports_the_handler_in_a_file(config: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SHOUT)
    config.write_text(beside("    with: {prefix: x, pause: 10s}\n"))
    assert check(Path("gaiod.yaml"), tmp_path).stdout == "gaiod.yaml: fine; listeners: mine\n"


def test_check_ends_with_78_and_says_everything_when_much_is_wrong(config: Path, tmp_path: Path) -> None:
    config.write_text(
        "workers: 0\nlisteners:\n  echo: {bind: localhost:1, handler: echo}\n"
        "  two: {bnid: 127.0.0.1:2, handler: echo}\n"
    )
    done = check(config, tmp_path)
    assert (done.returncode, done.stdout) == (78, "")
    lines = done.stderr.splitlines()
    assert [line.rpartition("gaiod.yaml")[2].partition(" ")[0] for line in lines] == [
        ":1:10:",
        ":3:16:",
        ":4:3:",
        ":4:9:",
    ]
    assert lines[0] == f"{config}:1:10: workers: 0 is out of range; write 1 to 1024"
    assert "bnid: unknown key; did you mean bind?" in lines[3]


@pytest.mark.parametrize(
    ("text", "place"),
    [("listeners: [\n", ":2:1: "), ("listeners: {a: {bind: 127.0.0.1:1, handler: nope}}\n", ":1:45: ")],
    ids=["syntax", "handler"],
)
def test_check_ends_with_78_and_the_place_when_one_thing_is_wrong(
    config: Path, tmp_path: Path, text: str, place: str
) -> None:
    config.write_text(text)
    done = check(config, tmp_path)
    assert done.returncode == 78
    assert done.stderr.startswith(f"{config}{place}")
    assert "Traceback" not in done.stderr


def test_check_ends_with_78_when_there_is_no_file(config: Path, tmp_path: Path) -> None:
    done = check(config, tmp_path)
    assert done.returncode == 78
    assert done.stderr.startswith(f"{config}: No such file or directory; ")


def test_check_ends_with_78_when_a_handler_exits_at_import(config: Path, tmp_path: Path) -> None:
    """Its own exit status would say that all is well."""
    (tmp_path / "mine.py").write_text("import sys\nsys.exit(0)\n")
    config.write_text(beside())
    assert check(config, tmp_path).returncode == 78


def test_check_ends_with_64_when_it_is_given_no_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gaiod", "check"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 64
    assert "Missing argument 'FILE'" in done.stderr


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("    async def on_open(self, conn):\n        pass\n", "Mine.on_open at {file}:{line} is async"),
        ("    def on_open(self):\n        pass\n", "write def on_open(self, conn: Conn) -> None"),
        ("    def __init__(self):\n        pass\n", "write def __init__(self, options: Any = None) -> None"),
        ("    def __init__(self, options):\n        raise KeyError('token')\n", "raised KeyError: 'token' (at {file}:"),
        ("    def __init__(self, options):\n        raise SystemExit(0)\n", "raised SystemExit: 0 (at {file}:"),
        (
            "    def __init__(self, options):\n        self.on_read = lambda conn: None\n",
            "Mine().on_read at {file}:{next} takes (conn)",
        ),
    ],
    ids=["async", "signature", "init takes no options", "init raises", "init exits", "made by init"],
)
def test_check_and_serve_refuse_a_handler_that_can_never_work(
    config: Path, tmp_path: Path, body: str, said: str
) -> None:
    file = tmp_path / "mine.py"
    before = IMPORTS + "class Mine(gaiod.Handler):\n"
    file.write_text(before + body)
    config.write_text(beside())
    done = check(config, tmp_path)
    assert (done.returncode, done.stdout) == (78, "")
    line = before.count("\n") + 1
    assert said.format(file=file, line=line, next=line + 1) in done.stderr
    assert done.stderr.startswith(f"{config}:")
    command = [sys.executable, "-m", "gaiod", "serve", "--allow-root", "-c", str(config)]
    served = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert (served.returncode, served.stderr) == (78, done.stderr)


def test_check_fails_when_a_handler_exits_as_if_all_were_well(config: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import os\nos._exit(0)\n")
    config.write_text(beside())
    done = check(config, tmp_path)
    assert (done.returncode, done.stdout) == (70, "")
    assert "ended the process with exit status 0" in done.stderr
