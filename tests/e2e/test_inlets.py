"""Publishers that connect for each message notice nothing of kills of the feeder, reloads and an upgrade."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from core.support.waiting import LIMIT_S

from e2e.support.clients import connect
from e2e.support.daemons import Daemon
from e2e.support.feeding import feeder_of
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

CONFIG = """\
metrics: {{listen: "127.0.0.1:0"}}
workers: 1
listeners:
  ticks:
    bind: "127.0.0.1:0"
    handler: push
    with:
      subscribe: {{}}
      slow_consumer: {{limit: 8MiB}}
      memory_limit: {memory}MiB
      source:
        - {{name: {name}, lines: "unix:{folder}/lines.sock", topic: lines}}
        - {{http: "unix:{folder}/http.sock"}}
"""


class Publisher(threading.Thread):
    """Connects for each of its messages, some 500 times a second, until `stop`.

    Attributes:
        published: how many messages it has; each is `KIND NUMBER`.
        refused: what a connect that failed raised.
        cut: how many messages it does not know of whether they were taken.
    """

    def __init__(self, kind: str, say: Callable[[str], bool]) -> None:
        super().__init__()
        self.kind = kind
        self.published: list[str] = []
        self.refused: list[str] = []
        self.cut = 0
        self._say = say
        self._has_stopped = threading.Event()

    def run(self) -> None:
        number = 0
        while not self._has_stopped.wait(0.002):  # a rhythm, not a wait
            number += 1
            text = f"{self.kind} {number}"
            try:
                if self._say(text):
                    self.published.append(text)
                else:
                    self.cut += 1
            except (ConnectionRefusedError, FileNotFoundError, BlockingIOError) as error:
                self.refused.append(repr(error))

    def stop(self) -> None:
        """Publish no more."""
        self._has_stopped.set()
        self.join()

    def goes_on(self) -> None:
        """Wait until it has published more."""
        before = len(self.published)
        wait_until(lambda: len(self.published) > before + 10, f"more of the {self.kind}")


def _say_line(folder: Path, text: str) -> bool:
    with connect(f"unix:{folder}/lines.sock") as sock:
        sock.sendall(text.encode() + b"\n")
    return True


def _post(folder: Path, text: str) -> bool:
    """Tell whether it was answered: one that a killed feeder has taken is not."""
    with connect(f"unix:{folder}/http.sock") as sock:
        try:
            sock.sendall(f"POST /posts HTTP/1.0\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
            return sock.recv(100).startswith(b"HTTP/1.1 204")
        except (ConnectionResetError, BrokenPipeError):
            return False


@contextmanager
def publishers(folder: Path) -> Iterator[tuple[Publisher, Publisher]]:
    """Let somebody send lines, and somebody else post."""
    lines = Publisher("line", lambda text: _say_line(folder, text))
    posts = Publisher("post", lambda text: _post(folder, text))
    with ExitStack() as stack:
        for each in (lines, posts):
            each.start()
            stack.callback(each.stop)
        yield lines, posts


class Reader(threading.Thread):
    """A subscriber of both topics, and what it has got."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(daemon=True)
        self.got: list[str] = []
        self._sock = sock
        sock.settimeout(None)
        sock.sendall(b"SUBSCRIBE lines posts\n")

    def run(self) -> None:
        with self._sock.makefile("r") as lines:
            for line in lines:
                self.got.append(line.rstrip("\n"))


@contextmanager
def reader(running: Daemon) -> Iterator[Reader]:
    """Give a subscriber."""
    with connect(running.address("ticks")) as sock:
        reader = Reader(sock)
        reader.start()
        wait_until(lambda: running.scrape().total("gaiod_push_subscribers") == 1, "the subscription")
        yield reader
        sock.shutdown(socket.SHUT_RDWR)
        reader.join(LIMIT_S)


def _config(folder: Path, memory: int = 64, name: str = "lines") -> str:
    return CONFIG.format(folder=folder, memory=memory, name=name)


def _expect_all(got: list[str], *publishers: Publisher) -> None:
    """Expect nothing of what was published to be missing, or to be there twice, and nobody to have been refused."""
    for each in publishers:
        assert not each.refused, (len(each.refused), each.refused[:3])
        missing = set(each.published) - set(got)
        assert not missing, (len(missing), min(missing))
    assert len(got) == len(set(got))


def test_publishers_notice_nothing_of_kills_reloads_and_an_upgrade(daemon: Start, tmp_path: Path) -> None:
    running = daemon(_config(tmp_path))
    feeder_of(running)
    with reader(running) as subscriber, publishers(tmp_path) as (lines, posts):

        def go_on() -> None:
            lines.goes_on()
            posts.goes_on()

        go_on()
        for memory, name in ((65, "lines"), (66, "lines"), (66, "inbox"), (66, "lines")):
            (tmp_path / "gaiod.yaml").write_text(_config(tmp_path, memory, name))
            assert running.gaiod("reload").returncode == 0
            go_on()
        assert running.gaiod("upgrade").returncode == 0
        go_on()
        lines.stop()
        assert lines.cut + posts.cut == 0
        for _ in range(2):  # a line of whom a killed feeder had accepted is lost: nothing answers lines
            feeder = feeder_of(running)
            os.kill(feeder, signal.SIGKILL)
            wait_until(lambda feeder=feeder: feeder_of(running) != feeder, "another feeder")  # type: ignore[misc]
            posts.goes_on()
        posts.stop()
        assert posts.cut <= 2, "those that the killed feeders had accepted"
        last = {lines.published[-1], posts.published[-1]}
        wait_until(lambda: last <= set(subscriber.got), "the last messages")
        _expect_all(subscriber.got, lines, posts)
    os.kill(running.ask("status")["pid"], signal.SIGTERM)
    wait_until(lambda: not list(tmp_path.glob("*.sock")), "the end")


def test_publisher_that_stays_connected_is_left_alone_by_a_reload_of_other_options(
    daemon: Start, tmp_path: Path
) -> None:
    running = daemon(_config(tmp_path))
    feeder_of(running)
    with connect(f"unix:{tmp_path}/lines.sock") as publisher, reader(running) as subscriber:
        publisher.sendall(b"before\nha")
        wait_until(lambda: subscriber.got, "the first line")
        (tmp_path / "gaiod.yaml").write_text(_config(tmp_path, memory=65))
        assert running.gaiod("reload").returncode == 0
        assert running.gaiod("publish", "posts", "after the reload").returncode == 0
        publisher.sendall(b"lf\n")
        wait_until(lambda: len(subscriber.got) == 3, "the rest of the line")
        assert subscriber.got == ["before", "after the reload", "half"]


def test_source_that_a_reload_removes_closes_its_socket_and_another_one_gets_the_address(
    daemon: Start, tmp_path: Path
) -> None:
    running = daemon(_config(tmp_path))
    feeder_of(running)
    (tmp_path / "gaiod.yaml").write_text(_config(tmp_path).partition("        - {http")[0])
    assert running.gaiod("reload").returncode == 0
    assert not (tmp_path / "http.sock").exists()
    with pytest.raises(FileNotFoundError):
        _post(tmp_path, "nobody listens")
    assert _say_line(tmp_path, "somebody does")


def test_reload_that_finds_the_address_of_a_source_taken_names_it_and_changes_nothing(
    daemon: Start, tmp_path: Path
) -> None:
    running = daemon(_config(tmp_path).replace(f'"unix:{tmp_path}/http.sock"', f'"127.0.0.1:{_free_port()}"'))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        (tmp_path / "gaiod.yaml").write_text(_config(tmp_path).replace(f"unix:{tmp_path}/http.sock", address))
        done = running.gaiod("reload")
        assert done.returncode == 71
        assert f"listener ticks: source http: cannot listen on {address}: Address already in use" in done.stderr
    assert running.ask("status")["generation"] == 1
    assert _say_line(tmp_path, "it is there")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port
