"""handlers/README.md, followed literally: its handler is checked, served, talked to and tested."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from core.support.processes import REPOSITORY

import gaiod
from e2e.support.blocks import Terminal, blocks_of, terminal
from e2e.support.clients import connect
from e2e.support.starting import Start
from e2e.support.tools import tool

BLOCKS = blocks_of(REPOSITORY / "handlers" / "README.md")


def text_of(start: str) -> str:
    """Return the block that begins so."""
    (found,) = (block.text for block in BLOCKS if block.text.startswith(start))
    return found


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Terminal]:
    """A terminal in a folder with the files that the page writes."""
    tool("nc", "netcat-openbsd")
    for block in BLOCKS:
        if block.file:
            (tmp_path / block.file).write_text(block.text)
    with terminal(tmp_path) as made:
        yield made


def test_there_is_no_block_that_nobody_runs() -> None:
    begins = [block.text.split("\n")[0].split()[:2] for block in BLOCKS]
    commands = [["gaiod", "check"], ["printf", "'sesame\\nput"], ["pytest", "-q"]]
    assert sorted(begins) == sorted([["#", "notes.py"], ["#", "notes.yaml"], ["#", "test_notes.py"], *commands])


def test_handler_is_served(reader: Terminal) -> None:
    assert "notes.yaml: fine" in reader.run_as_a_reader(text_of("gaiod check"))
    assert reader.run(text_of("printf")) == "password? welcome\nkept\ntwo bottles\nbye\n"


def test_its_tests_pass(reader: Terminal) -> None:
    assert "2 passed" in reader.run(text_of("pytest").replace("pytest", "pytest -p no:cacheprovider"))


def test_clients_that_are_slow_say_too_much_or_guess_are_told(daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "notes.py").write_text(text_of("# notes.py"))
    running = daemon(
        'metrics: {listen: "127.0.0.1:0"}\n'
        'listeners: {notes: {bind: "127.0.0.1:0", handler: ./notes.py, with: {patience: 100ms}}}\n'
    )
    answers = []
    for said in (b"", b"wrong\n", b"x" * 2000):
        with connect(running.address("notes")) as sock:
            sock.sendall(said)
            with sock.makefile("rb") as file:
                answers.append(file.read())
    assert answers == [b"password? \ntoo slow\n", b"password? no\n", b"password? too long\n"]


def test_connections_of_the_counter_live_over_a_reload(daemon: Start, tmp_path: Path) -> None:
    page = (REPOSITORY / "handlers" / "README.md").read_text()
    lines = page.partition("  ```python\n")[2].partition("  ```\n")[0].splitlines()
    source = "\n".join(["from gaiod import CoroutineHandler, Stream", *(line[2:] for line in lines), ""])
    (tmp_path / "counter.py").write_text(source)
    text = 'metrics: {listen: "127.0.0.1:0"}\nlisteners: {counter: {bind: "127.0.0.1:0", handler: ./counter.py}}\n'
    running = daemon(text)
    with connect(running.address("counter")) as sock, sock.makefile("rb") as file:
        sock.sendall(b"a\nb\nhal")
        assert [file.readline(), file.readline()] == [b"1\n", b"2\n"]
        (tmp_path / "gaiod.yaml").write_text(text.replace("./counter.py", "./counter.py, idle_timeout: 2h"))
        assert running.ask("reload")["generation"] == 2
        running.wait_for("handed 1 of 1 connections over")
        sock.sendall(b"f\n")
        assert file.readline() == b"3\n"


def test_names_on_the_page_are_those_of_gaiod() -> None:
    page = (REPOSITORY / "handlers" / "README.md").read_text()
    for name in ("CoroutineHandler", "Stream", "EndOfStream", "LimitExceeded", "ForgottenAwait", "Task"):
        assert name in page
        assert hasattr(gaiod, name)
