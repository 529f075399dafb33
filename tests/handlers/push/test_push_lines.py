"""The source lines: files that grow, are replaced or truncated, FIFOs, standard input, unix sockets."""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from core.support.waiting import LIMIT_S
from feeder.support.outlets import FakeOutlet
from gaiod.handlers.push.options import LinesOptions
from gaiod.handlers.push.sources.lines import LinesSource

Start = Callable[..., LinesSource]
MAX = 16


@pytest.fixture
def start(outlet: FakeOutlet) -> Start:
    """A starter of sources: a path, and other options."""

    def start(path: object, **values: Any) -> LinesSource:
        source = LinesSource(LinesOptions(lines=str(path), **values), "t", MAX, "")
        outlet.start(source)
        return source

    return start


def append(path: Path, text: str) -> None:
    """Add to a file, as a program that logs does."""
    with path.open("a") as file:
        file.write(text)


def follow(outlet: FakeOutlet, start: Start, path: Path, **values: Any) -> None:
    """Start with a file, and wait until it is open."""
    start(path, **values)
    outlet.step_until(lambda: outlet.up, "the file being open")


# -- files -------------------------------------------------------------------------------------------------


def test_lines_that_are_added_to_a_file_are_published(outlet: FakeOutlet, start: Start, tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, "before\n")
    follow(outlet, start, path)
    append(path, "one\ntwo\n")
    outlet.expect_lines("t", b"one", b"two")
    append(path, "three\n")
    outlet.expect_lines("t", b"three")
    assert outlet.threads == {"gaiod-lines"}
    assert outlet.gaps == 0


def test_file_is_read_from_its_start_if_that_is_wanted(outlet: FakeOutlet, start: Start, tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, "one\ntwo\n")
    follow(outlet, start, path, read_from="start")
    outlet.expect_lines("t", b"one", b"two")


def test_another_source_goes_on_behind_the_last_line_that_was_published(
    outlet: FakeOutlet, start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    append(path, "before\n")
    follow(outlet, start, path)
    append(path, "one\ntwo\nthr")
    outlet.expect_lines("t", b"one", b"two")
    for text, line in ("ee\n", b"three"), ("four\n", b"four"):
        outlet.restart()
        append(path, text)
        start(path, read_from="start")
        outlet.expect_lines("t", line)
    assert outlet.gaps == 0


def test_place_at_the_end_is_kept_before_the_first_line(outlet: FakeOutlet, start: Start, tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, "before\n")
    follow(outlet, start, path)
    outlet.step_until(lambda: outlet.positions, "the place being kept")
    outlet.restart()
    append(path, "meanwhile\n")
    start(path)
    outlet.expect_lines("t", b"meanwhile")


def test_file_that_was_renamed_while_nobody_read_is_read_to_its_end_before_the_new_one(
    outlet: FakeOutlet, start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    append(path, "one\n")
    follow(outlet, start, path, read_from="start")
    outlet.expect_lines("t", b"one")
    outlet.restart()
    append(path, "two\nthree")
    path.rename(tmp_path / "log.1")
    start(path)
    outlet.step_until(lambda: not outlet.up, "the path being missed")
    append(path, "four\n")
    outlet.expect_lines("t", b"two", b"three", b"four")
    assert outlet.gaps == 0


@pytest.mark.parametrize("text", ["on2\nten\nmore\n", "", "on"], ids=["longer", "empty", "shorter"])
def test_file_that_was_written_anew_while_nobody_read_is_a_gap_and_read_from_its_start(
    outlet: FakeOutlet, start: Start, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "log"
    append(path, "one\n")
    follow(outlet, start, path, read_from="start")
    outlet.expect_lines("t", b"one")
    outlet.restart()
    path.write_text(text)
    start(path)
    outlet.step_until(lambda: outlet.gaps, "the gap")
    append(path, "\nend\n")
    outlet.expect_lines("t", *(line.encode() for line in f"{text}\nend".split("\n")))
    assert "it is read from its start" in outlet.gap_reasons[0]


def test_line_is_published_once_it_is_whole(outlet: FakeOutlet, start: Start, tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, "")
    follow(outlet, start, path)
    append(path, "on")
    append(path, "e\ntw")
    outlet.expect_lines("t", b"one")
    append(path, "o\n")
    outlet.expect_lines("t", b"two")


def test_rest_of_a_file_that_is_renamed_comes_before_the_new_one(
    outlet: FakeOutlet, start: Start, tmp_path: Path
) -> None:
    path, old = tmp_path / "log", tmp_path / "log.1"
    append(path, "")
    follow(outlet, start, path)
    path.rename(old)
    append(old, "late\nwithout an end")
    append(path, "new\n")
    outlet.expect_lines("t", b"late", b"without an end", b"new")
    append(path, "more\n")
    outlet.expect_lines("t", b"more")
    assert outlet.gaps == 0


def test_file_that_is_truncated_is_read_anew_and_counted_as_a_gap(
    outlet: FakeOutlet, start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    append(path, "one\nsomething long")
    follow(outlet, start, path, read_from="start")
    outlet.expect_lines("t", b"one")
    os.truncate(path, 0)
    outlet.step_until(lambda: outlet.gaps == 1, "the gap")
    append(path, "new\n")
    outlet.expect_lines("t", b"new")
    assert outlet.gaps == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [("price 100\n", "price 101\n"), ("one\n", "new and longer\nand more\n"), ("a\n" * 3000, "b\n" * 3000)],
    ids=["as long", "longer", "more than is compared"],
)
def test_file_that_is_written_anew_in_place_is_read_from_its_start_and_counted_as_a_gap(
    outlet: FakeOutlet, start: Start, tmp_path: Path, before: str, after: str
) -> None:
    """Between two looks: the file was never seen shorter than what was read of it."""
    path = tmp_path / "state"
    append(path, before)
    follow(outlet, start, path)
    with path.open("r+") as file:
        file.write(after)
    outlet.expect_lines("t", *after.encode().splitlines())
    append(path, "next\n")
    outlet.expect_lines("t", b"next")
    assert outlet.gap_reasons == [f"{path} was truncated or written anew; it is read from its start"]


def test_line_that_was_begun_does_not_go_on_in_the_new_content(
    outlet: FakeOutlet, start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "state"
    append(path, "one\nhalf a")
    follow(outlet, start, path, read_from="start")
    outlet.expect_lines("t", b"one")
    path.write_text("a line\nof the new one\n")
    outlet.expect_lines("t", b"a line", b"of the new one")
    assert outlet.gaps == 1


def test_file_that_is_only_touched_is_the_same_file(outlet: FakeOutlet, start: Start, tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, "one\n")
    follow(outlet, start, path)
    path.touch()
    append(path, "two\n")
    outlet.expect_lines("t", b"two")
    assert outlet.gaps == 0


def test_file_that_is_not_there_yet_is_waited_for_and_read_from_its_start(
    outlet: FakeOutlet, start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log"
    with caplog.at_level("INFO"):
        start(path)
        outlet.step_until(lambda: "trying again" in caplog.text, "the complaint")
        assert not outlet.up
        path.write_text("one\n")
        outlet.expect_lines("t", b"one")
    assert outlet.up
    assert caplog.text.count("No such file") == 1
    assert f"{path} can be read" in caplog.text


def test_file_that_is_deleted_is_waited_for(outlet: FakeOutlet, start: Start, tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, "")
    follow(outlet, start, path)
    path.unlink()
    path.write_text("new\n")
    outlet.expect_lines("t", b"new")


def test_folder_is_no_file(outlet: FakeOutlet, start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    start(tmp_path)
    outlet.step_until(lambda: "Is a directory" in caplog.text, "the complaint")


def test_line_that_is_too_long_is_refused_and_the_next_one_published(
    outlet: FakeOutlet, start: Start, tmp_path: Path
) -> None:
    def encode(topic: str, data: bytes) -> None:
        if len(data) > MAX:
            raise ValueError("is too long")

    outlet.encode = encode
    path = tmp_path / "log"
    append(path, "x" * 100_000 + "\nnext\n" + "y" * (MAX + 1) + "\n" + "z" * MAX + "\n")
    follow(outlet, start, path, read_from="start")
    outlet.expect_lines("t", b"next", b"z" * MAX)
    assert outlet.refused == 2


def test_file_is_read_no_further_while_workers_are_behind(outlet: FakeOutlet, start: Start, tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, "".join(f"{number}\n" for number in range(100)))
    outlet.be_behind(True)
    follow(outlet, start, path, read_from="start")
    assert outlet.messages == []
    outlet.be_behind(False)
    outlet.expect_lines("t", *(b"%d" % number for number in range(100)))


def test_reader_that_waits_for_workers_ends_when_it_is_stopped(
    outlet: FakeOutlet, start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    append(path, "one\ntwo\n")
    outlet.be_behind(True)
    follow(outlet, start, path, read_from="start")
    outlet.close()
    assert outlet.messages == []


# -- FIFOs -------------------------------------------------------------------------------------------------


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A FIFO."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def test_lines_of_one_writer_after_another_are_published(outlet: FakeOutlet, start: Start, fifo: Path) -> None:
    start(fifo)
    fifo.write_bytes(b"one\ntwo\n")  # waits for the reader
    outlet.expect_lines("t", b"one", b"two")
    fifo.write_bytes(b"three\nrest")
    outlet.expect_lines("t", b"three", b"rest")
    assert outlet.up


def test_writer_that_comes_while_another_goes_is_never_without_a_reader(
    outlet: FakeOutlet, start: Start, fifo: Path
) -> None:
    before = signal.getsignal(signal.SIGPIPE)
    start(fifo)
    for number in range(50):
        with fifo.open("wb", buffering=0) as writer:
            writer.write(b"%d\n" % number)  # BrokenPipeError, if nobody reads
    outlet.expect_lines("t", *(b"%d" % number for number in range(50)))
    assert signal.getsignal(signal.SIGPIPE) == before


def test_fifo_that_is_replaced_is_opened_anew(outlet: FakeOutlet, start: Start, fifo: Path) -> None:
    start(fifo)
    outlet.step_until(lambda: outlet.up, "the FIFO being open")
    fifo.unlink()
    os.mkfifo(fifo)
    fifo.write_bytes(b"one\n")
    outlet.expect_lines("t", b"one")


# -- standard input ----------------------------------------------------------------------------------------


def test_standard_input_is_read_to_its_end(
    outlet: FakeOutlet, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    near, far = os.pipe()
    with os.fdopen(near) as stdin, os.fdopen(far, "w") as writer:
        monkeypatch.setattr("sys.__stdin__", stdin)
        with caplog.at_level("INFO"):
            start("-")
            writer.write("one\ntwo\nrest")
            writer.flush()
            outlet.expect_lines("t", b"one", b"two")
            assert outlet.up
            writer.close()
            outlet.expect_lines("t", b"rest")
            outlet.step_until(lambda: "standard input has ended" in caplog.text, "the line in the log")
            assert outlet.up, "it has done what it was to do"
        outlet.close()
        assert not outlet.up


# -- unix sockets ------------------------------------------------------------------------------------------


@pytest.fixture
def connect(outlet: FakeOutlet, start: Start, tmp_path: Path) -> Callable[[], socket.socket]:
    """Serve a socket; give a maker of connections to it, which the test closes."""
    path = str(tmp_path / "in.sock")
    start(f"unix:{path}")

    def connect() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(LIMIT_S)
        sock.connect(path)
        return sock

    return connect


def test_lines_of_everybody_who_connects_are_published(
    outlet: FakeOutlet, connect: Callable[[], socket.socket]
) -> None:
    with connect() as one, connect() as other:
        one.sendall(b"a1\na")
        outlet.expect_lines("t", b"a1")
        other.sendall(b"b1\n")
        outlet.expect_lines("t", b"b1")
        one.sendall(b"2\nrest")
        one.shutdown(socket.SHUT_WR)
        outlet.expect_lines("t", b"a2", b"rest")
        outlet.step_until(lambda: outlet.clients() == 1, "the end of the connection")


def test_connection_is_not_read_while_workers_are_behind(
    outlet: FakeOutlet, connect: Callable[[], socket.socket]
) -> None:
    with connect() as sock:
        outlet.be_behind(True)
        sock.sendall(b"one\n")
        outlet.expect_lines("t", b"one")
        sock.sendall(b"two\n")
        for _ in range(20):
            outlet.step()
        assert outlet.messages == []
        outlet.be_behind(False)
        outlet.expect_lines("t", b"two")


def test_connection_that_ends_while_workers_are_behind_is_forgotten(
    outlet: FakeOutlet, connect: Callable[[], socket.socket]
) -> None:
    with connect() as sock:
        outlet.be_behind(True)
        sock.sendall(b"one\n")
        outlet.expect_lines("t", b"one")
    outlet.be_behind(False)
    outlet.step_until(lambda: outlet.clients() == 0, "the end of the connection")
