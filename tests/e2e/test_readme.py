"""Every block of code in the README is run: commands against a daemon, handlers by clients, YAML by `gaiod check`."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import yaml
from core.support.pki import authority
from core.support.processes import REPOSITORY
from core.support.sockets import reset

from e2e.support.blocks import Block, Terminal, blocks_of, terminal
from e2e.support.clients import connect
from e2e.support.starting import Start
from e2e.support.tools import tool
from e2e.support.upstreams import accept, address_of, config, upstreams
from e2e.support.waiting import wait_until

README = REPOSITORY / "README.md"
BLOCKS = blocks_of(README)
YAML = [block for path in (README, REPOSITORY / "deploy" / "README.md") for block in blocks_of(path)
        if block.language == "yaml"]  # fmt: skip
BUILD_LIMIT_S = 900.0

Test = TypeVar("Test", bound=Callable[..., object])
RUN: list[str] = []
"""How the blocks begin that tests here run. YAML is checked without being named."""


def runs(*starts: str) -> Callable[[Test], Test]:
    """Say which blocks a test runs, by how they begin."""
    RUN.extend(starts)
    return lambda test: test


def text_of(start: str) -> str:
    """Return the block that begins so."""
    (found,) = (block for block in BLOCKS if block.text.startswith(start))
    return found.text


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Terminal]:
    """A terminal in a folder with the files that the README writes."""
    tool("nc", "netcat-openbsd")
    for block in BLOCKS:
        if block.file:
            (tmp_path / block.file).write_text(block.text)
    with terminal(tmp_path) as made:
        yield made


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_block_is_run_by_exactly_one_test(block: Block) -> None:
    runners = [start for start in RUN if block.text.startswith(start)]
    assert len(runners) == (block.language != "yaml"), f"{block.place}: no test runs this block: {block.text}"


@pytest.mark.parametrize("start", RUN)
def test_runner_has_a_block(start: str) -> None:
    assert text_of(start)


def test_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 320


FILE_OF_THE_READER = re.compile(r"/etc/(?:gaiod|letsencrypt)/(?:[\w.-]+/)*([\w-]+\.\w+)")


@pytest.mark.parametrize("block", YAML, ids=lambda block: block.place)
def test_yaml_is_a_configuration(reader: Terminal, block: Block) -> None:
    """Files in /etc are the reader's own: here they stand in the reader's folder."""
    made = authority().issue("app.example.org", names="DNS:app.example.org")
    for name in FILE_OF_THE_READER.findall(block.text):
        kinds = {"key": made.key, "ca": authority().chain, "crl": authority().revocations(), "txt": "192.0.2.7\n"}
        wanted = next((text for word, text in kinds.items() if word in re.split(r"\W", name)), made.chain)
        (reader.folder / name).write_text(made.key if name == "privkey.pem" else wanted)
    (reader.folder / "block.yaml").write_text(FILE_OF_THE_READER.sub(rf"{reader.folder}/\1", block.text))
    assert "block.yaml: fine; listeners: " in reader.run("gaiod check block.yaml")


@runs("gaiod serve\n", "echo hello | nc")
def test_first_minutes(reader: Terminal) -> None:
    reader.run_as_a_reader(text_of("gaiod serve\n"))
    printed = reader.run(text_of("echo hello | nc"))
    assert printed.startswith("hello\n")
    assert re.search(r"^gaiod_received_bytes_total\{.*\} 6\.0$", printed, re.MULTILINE)
    assert "HTTP/1.1 200 " in printed
    assert re.search(r"^echo +127\.0\.0\.1:7000 +echo +serving", printed, re.MULTILINE)
    assert reader.interrupt() == 0


@runs("gaiod check gaiod.yaml")
def test_configuration_is_checked_served_and_reloaded(reader: Terminal) -> None:
    printed = reader.run_as_a_reader(text_of("gaiod check gaiod.yaml"))
    unchanged = "  nothing has changed; connections go on\n"
    assert printed == f"gaiod.yaml: fine; listeners: echo\nreloaded: generation 2\n{unchanged}"


@runs("# shout.py", "gaiod check shout.yaml")
def test_handler_is_served(reader: Terminal) -> None:
    assert "fine" in reader.run_as_a_reader(text_of("gaiod check shout.yaml"))
    assert reader.run("echo ping | nc -q 1 127.0.0.1 7001") == "PING\n"


@runs("# chat.py")
def test_chat_tells_everybody(daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text(text_of("# chat.py"))
    running = daemon('metrics: {listen: "127.0.0.1:0"}\nlisteners: {chat: {bind: "127.0.0.1:0", handler: ./chat.py}}\n')
    with connect(running.address("chat")) as one, connect(running.address("chat")) as other:
        wait_until(lambda: len(running.ask("connections")["connections"]) == 2, "both members")
        one.sendall(b"hello")
        assert (one.recv(5, socket.MSG_WAITALL), other.recv(5, socket.MSG_WAITALL)) == (b"hello", b"hello")


@runs("# test_shout.py")
def test_test_of_the_handler_passes(reader: Terminal) -> None:
    assert "1 passed" in reader.run("pytest -p no:cacheprovider test_shout.py")


@runs("# echo.py")
def test_watcher_alone_echoes(reader: Terminal) -> None:
    reader.start("python echo.py")
    answer = wait_until(lambda: reader.run("echo hello | nc -q 1 127.0.0.1 7002", check=False), "an echo")
    assert answer == "hello\n"


@runs("gaiod publish ticks")
def test_subscriber_gets_ticks_and_what_is_published(reader: Terminal) -> None:
    reader.serve("gaiod serve -c push.yaml")
    received = reader.start("nc -d 127.0.0.1 7002")
    wait_until(lambda: re.match(r"\d+\.\d+ \d+\n", received.read_text()), "a tick")
    assert reader.run(text_of("gaiod publish ticks")) == "published: 1 message to ticks\n"
    wait_until(lambda: "hello\n" in received.read_text(), "the message")


@runs("connection closed conn=")
def test_line_of_a_connection_is_as_shown(daemon: Start) -> None:
    shown = _fields(text_of("connection closed conn="))
    with upstreams(1) as (server,):
        running = daemon(config(f"servers: [{address_of(server)}]") + "log: {connections: {close: true}}\n")
        with connect(running.address("db")) as client:
            far = accept(server)
            wait_until(lambda: running.ask("connections")["connections"][0]["phase"] == "data", "the relays")
            client.sendall(b"request")
            assert far.recv(7, socket.MSG_WAITALL) == b"request"
            reset(far)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        running.wait_for("connection closed")
    (line,) = (line for line in running.log().splitlines() if "connection closed" in line)
    told = _fields(line)
    assert list(told) == list(shown)
    for name in ("listener", "reason", "who", "how", "cause", "phase"):
        assert told[name] == shown[name]


def _fields(text: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S+)", text))


DEVELOP = "pip install -q -e '.[test]' pre-commit"


def test_a_developers_test_commands(reader: Terminal) -> None:
    """All of the block but what installs; `test_fresh_clone_is_installed` runs that."""
    commands = [line for line in text_of(DEVELOP).splitlines() if "pytest " in line]
    assert len(commands) == 3
    for command in commands:
        assert "passed" in reader.run(command, cwd=REPOSITORY, limit_s=BUILD_LIMIT_S)


def test_hooks_before_a_commit_are_programs_of_the_environment() -> None:
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    for hook in hooks:
        assert (Path(sys.executable).parent / hook["entry"].split()[0]).exists(), hook


@pytest.mark.thorough
@runs("python3 -m venv .venv", DEVELOP)
def test_fresh_clone_is_installed(tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((REPOSITORY / name).read_bytes())
    install, develop = text_of("python3 -m venv .venv"), text_of(DEVELOP)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "RUNTIME_DIRECTORY": str(tmp_path)}
    # How this machine reaches the package index is not what is tested.
    of_index = re.compile(r"PIP_|SSL_|.*_proxy$", re.IGNORECASE)
    environment |= {name: value for name, value in os.environ.items() if of_index.match(name)}
    for text in (install + "gaiod version", "git init -q\n. .venv/bin/activate\n" + develop):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=BUILD_LIMIT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" passed") == 3
