"""The command line: what it offers, and what it says when it is misused."""

import platform
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner
from core.support.waiting import LIMIT_S

import gaiod
from gaiod import plugins
from gaiod.cli import main
from gaiod.core import ENGINE
from gaiod.core.engine import tls_library
from gaiod.tls_options import made_by

VERSION_TEXT = (
    f"gaiod {gaiod.__version__}, {ENGINE} engine, Python {platform.python_version()}, TLS by {made_by(tls_library())}\n"
)
COMMANDS = (
    "ban", "bans", "certificates", "check", "connections", "drain", "explain", "handlers", "health", "kill", "publish",
    "rebalance", "reload", "serve", "server", "status", "top", "unban", "upgrade", "version", "workers",
)  # fmt: skip


def _run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, arguments)
    return done.exit_code, done.stdout, done.stderr


def _module(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gaiod", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_every_command(option: str) -> None:
    status, out, _ = _run(option)
    assert status == 0
    assert re.findall(r"^  (\w+)  +\S", out.partition("Commands:")[2], re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_is_a_sentence(command: str) -> None:
    status, out, _ = _run(command, "--help")
    assert status == 0
    assert out.startswith(f"Usage: main {command} [OPTIONS]")
    assert re.search(r"^  [A-Z].*", out, re.MULTILINE)


def test_help_of_serve_tells_the_exit_statuses() -> None:
    _, out, _ = _run("serve", "--help")
    assert "-c, --config FILE" in out
    for status in ("0", "64", "70", "71", "78"):
        assert re.search(rf"\b{status}\b", out), status


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_version_tells_the_engine_and_python(arguments: list[str]) -> None:
    assert _run(*arguments) == (0, VERSION_TEXT, "")


def test_handlers_are_listed_with_what_they_do() -> None:
    status, out, _ = _run("handlers")
    assert status == 0
    assert re.search(r"^echo +gaiod\.handlers\.echo:Echo +Read, write the same bytes back", out, re.MULTILINE)


def test_handlers_are_all_listed_when_one_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {"bad": "no_such_module:Bad", "echo": "gaiod.handlers.echo:Echo"}
    monkeypatch.setattr(plugins, "installed", lambda: broken)
    status, out, _ = _run("handlers")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["bad", "echo"]
    assert "cannot be loaded: there is no module no_such_module" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sevre"], "No such command 'sevre'"),
        (["--nonsense"], "No such option"),
        (["serve", "--nonsense"], "No such option"),
        (["serve", "file.yaml"], "unexpected extra argument"),
        (["serve", "--config"], "requires an argument"),
        (["check"], "Missing argument 'FILE'"),
        (["check", "/"], "is a directory"),
    ],
)
def test_wrong_usage_ends_with_64_and_says_what_is_wrong(arguments: list[str], message: str) -> None:
    status, out, err = _run(*arguments)
    assert (status, out) == (64, "")
    assert message in err


def test_no_command_shows_the_help_and_ends_with_64() -> None:
    status, out, err = _run()
    assert status == 64
    assert "Commands:" in out + err


def test_module_is_the_same_as_the_command() -> None:
    done = _module("version")
    assert (done.returncode, done.stdout, done.stderr) == (0, VERSION_TEXT, "")
    done = _module("--help")
    assert done.stdout.startswith("Usage: gaiod [OPTIONS] COMMAND")
    assert _module("sevre").returncode == 64
