"""`gaiod publish`, and what it says when it cannot."""

import subprocess
import sys
from pathlib import Path

import pytest

from e2e.support.daemons import ECHO, Daemon
from e2e.support.feeding import PUSHES, config, feeder_of, subscribers
from e2e.support.starting import Start

OTHER = '  other: {bind: "127.0.0.1:0", handler: "./mine.py:Pushes"}\n  echo: {bind: "127.0.0.1:0", handler: echo}\n'


@pytest.fixture
def running(daemon: Start, tmp_path: Path) -> Daemon:
    """A daemon with two listeners that take messages, and one that does not."""
    (tmp_path / "mine.py").write_text(PUSHES)
    running = daemon(config(workers=2, more=OTHER))
    feeder_of(running)
    return running


def _publish(running: Daemon, *arguments: str) -> tuple[int, str, str]:
    done = running.gaiod("publish", *arguments)
    return done.returncode, done.stdout, done.stderr


def test_message_goes_to_subscribers_of_every_worker_of_every_listener_that_takes_it(running: Daemon) -> None:
    with subscribers(running) as clients:
        assert _publish(running, "news", "hello, Grüße") == (0, "published: 1 message to mine, other\n", "")
        assert _publish(running, "news", "to one", "--listener", "mine")[1] == "published: 1 message to mine\n"
        assert _publish(running, "news", "to the other", "--listener", "other")[1] == "published: 1 message to other\n"
        assert _publish(running, "news", "the end")[0] == 0
        for client in clients:
            assert client.lines(3) == ["hello, Grüße", "to one", "the end"]


@pytest.mark.parametrize("dash", [[], ["-"]], ids=["nothing", "dash"])
def test_each_line_of_standard_input_is_a_message_published_as_it_comes(running: Daemon, dash: list[str]) -> None:
    command = [sys.executable, "-m", "gaiod", "publish", "news", *dash, "--control", running.control]
    with (
        subscribers(running, 1) as (client,),
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=running.folder) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            process.stdin.write(f"line {number}\n".encode())
            process.stdin.flush()
            assert client.line() == f"line {number}", "before the next was written"
        process.stdin.write(b"without an end")
        process.stdin.close()
        assert client.line() == "without an end"
        assert process.stdout.read() == b"published: 4 messages to mine, other\n"


def test_many_lines_are_published_in_their_order(running: Daemon) -> None:
    lines = [f"line {number}" for number in range(2000)]
    with subscribers(running, 1) as (client,):
        done = subprocess.run(
            [sys.executable, "-m", "gaiod", "publish", "news", "--control", running.control],
            input="\n".join(lines).encode(),
            capture_output=True,
            cwd=running.folder,
            check=True,
        )
        assert done.stdout == b"published: 2000 messages to mine, other\n"
        assert client.lines(2000) == lines
    assert "asks: publish" not in running.log(), "a line for each would fill the disk"


def test_longest_message_arrives(running: Daemon) -> None:
    with subscribers(running, 1) as (client,):
        assert _publish(running, "news", "é" * 24_576)[0] == 0
        assert client.line() == "é" * 24_576


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (
            ["nowhere", "hello"],
            65,
            "nobody takes a message of topic 'nowhere': listener mine: nobody can subscribe to it; "
            "listener other: nobody can subscribe to it",
        ),
        (["news", "two\nlines", "--listener", "mine"], 65, "listener mine: it has a newline; leave that out"),
        (["n" * 256, "hello"], 65, "its topic has 256 bytes; give one of at most 255"),
        (["news", "hello", "--listener", "mnie"], 64, "there is no listener mnie; there is mine, other, echo"),
        (
            ["news", "hello", "--listener", "echo"],
            64,
            "listener echo does not take messages: its handler has no on_message; mine, other do",
        ),
        (["news", "x" * 50_000], 65, "publish it over HTTP"),
    ],
    ids=["topic", "message", "long topic", "no listener", "takes none", "long message"],
)
def test_message_that_nobody_takes_is_told_why(
    running: Daemon, arguments: list[str], status: int, message: str
) -> None:
    code, out, err = _publish(running, *arguments)
    assert (code, out) == (status, "")
    assert message in err


def test_lines_before_one_that_nobody_takes_are_published(running: Daemon) -> None:
    with subscribers(running, 1) as (client,):
        done = subprocess.run(
            [sys.executable, "-m", "gaiod", "publish", "news", "--control", running.control],
            input=b"one\n\xff\nthree\n",
            capture_output=True,
            cwd=running.folder,
            check=False,
        )
        assert done.returncode == 65
        assert done.stderr.startswith(b"line 2: the message is no UTF-8")
        assert client.line() == "one"


def test_nobody_takes_messages_where_no_handler_does(daemon: Start) -> None:
    code, _, err = _publish(daemon(ECHO), "news", "hello")
    assert code == 64
    assert err == "no listener takes messages: no handler has on_message; configure one that does, such as push\n"
