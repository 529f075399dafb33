"""Files that are looked at while the daemon serves."""

import errno
import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest
from core.support.tls import certificate
from core.support.waiting import LIMIT_S

from gaiod import Watcher
from gaiod.config.admission.access import read_networks
from gaiod.config.tls.certificates import certificate_of
from gaiod.config.tls.pem import read_pem
from gaiod.process.dispatch import dispatch
from gaiod.settings import AccessRule, ListenerSettings, NetworkTable, Settings, TlsSettings
from gaiod.supervisor import file_watch as module
from gaiod.supervisor.file_watch import FileWatch, WatchedFile, signature_of
from gaiod.supervisor.processes.generation import Generation
from gaiod.watched_files import Content, FileKind, Files


class FakeFleet:
    """A fleet of one generation and no workers."""

    def __init__(self, *paths: Path) -> None:
        self.serve(*paths)

    def serve(self, *paths: Path) -> None:
        """Let another generation serve, which has just read the files: of networks, or a chain and its key."""
        tls, rules = None, []
        if paths and paths[0].suffix == ".pem":
            tls = TlsSettings((certificate_of(read_pem(str(paths[0]), "a file"), read_pem(str(paths[1]), "a file")),))
        else:
            rules = [AccessRule(False, f"file:{path}", read_networks(str(path))) for path in paths]
        listener = ListenerSettings("front", "127.0.0.1:0", "echo", access=tuple(rules) or None, tls=tls)
        self.generation = Generation(1, Settings((listener,)), [])

    def renew_files(self, kind: FileKind, files: Files, content: Content) -> bool:
        """As `Fleet.renew_files`."""
        return self.generation.renew(kind, files, content)

    @property
    def tables(self) -> list[NetworkTable | None]:
        """What is in force."""
        return [rule.table for rule in self.generation.settings.listeners[0].access or ()]


class Watch:
    """A watch in a loop of its own."""

    def __init__(self, watcher: Watcher, *paths: Path) -> None:
        self.watcher = watcher
        self.fleet = FakeFleet(*paths)
        self.is_settled = True
        self.subject = FileWatch(watcher, self.fleet, lambda: self.is_settled)  # type: ignore[arg-type]

    def wait(self, successes: int = 0, failures: int = 0, number: int = 0) -> WatchedFile:
        """Look until a file was read so often; return it."""

        def is_so() -> bool:
            files = self.subject.files
            return bool(files) and files[number].results == {"success": successes, "failure": failures}

        self.until(is_so)
        return self.subject.files[number]

    def until(self, look: Any) -> None:
        """Look, and run the loop, until `look()` is true."""
        end_s = time.monotonic() + LIMIT_S
        while not look():
            assert time.monotonic() < end_s, [each.results for each in self.subject.files]
            self.subject.look()
            self.watcher.timer(time.monotonic() + 0.01, context=lambda result: None)
            dispatch(self.watcher.wait_io())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow each other at once."""
    monkeypatch.setattr(module, "LOOK_S", 0.02)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of one network."""
    path = tmp_path / "blocked.txt"
    path.write_text("10.0.0.0/8\n")
    return path


def table(text: str, path: Path) -> NetworkTable:
    """Write a file, and return what it has."""
    path.write_text(text)
    return read_networks(str(path))


pytestmark = pytest.mark.usefixtures("quick")


def test_file_is_read_once_after_a_start_and_then_when_it_changes(
    watcher: Watcher, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    watch = Watch(watcher, path)
    file = watch.wait(successes=1)
    assert (file.kind, file.name, file.error) == ("access", str(path), None)
    assert caplog.messages == []
    now = table("10.0.0.0/8\n192.0.2.7\n", path)
    assert watch.wait(successes=2).error is None
    assert watch.fleet.tables == [now]
    assert caplog.messages == [f"access file {path} was read again: what it has is in force"]


def test_broken_file_keeps_what_was_there_and_is_told_until_it_is_good_again(
    watcher: Watcher, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    watch = Watch(watcher, path)
    read_s = watch.wait(successes=1).read_s
    before = watch.fleet.tables
    path.write_text("10.0.0.0/8\nnonsense\n")
    file = watch.wait(successes=1, failures=1)
    assert file.error is not None
    assert file.error.startswith(f"{path}, line 2: nonsense is not a network")
    assert file.read_s == read_s
    assert watch.fleet.tables == before
    path.unlink()
    assert "No such file" in (watch.wait(successes=1, failures=2).error or "")
    path.write_text("10.0.0.0/8\n")
    assert watch.wait(successes=2, failures=2).error is None
    assert file.read_s > read_s
    assert caplog.messages[0].endswith("; what it had before stays in force")
    assert caplog.messages[-1] == f"access file {path} was read again: it is good again, and has what is in force"


def test_file_that_another_takes_the_place_of_has_changed(watcher: Watcher, path: Path, tmp_path: Path) -> None:
    """By a rename, or by a link that leads elsewhere, with the same size and time."""
    link = tmp_path / "link"
    link.symlink_to(path)
    watch = Watch(watcher, link)
    watch.wait(successes=1)
    other = tmp_path / "other.txt"
    now = table("11.0.0.0/8\n", other)
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    (tmp_path / "next").symlink_to(other)
    (tmp_path / "next").replace(link)
    watch.wait(successes=2)
    assert watch.fleet.tables == [now]


def test_file_is_not_read_while_it_is_written_unless_that_never_ends(watcher: Watcher, path: Path) -> None:
    watch = Watch(watcher, path)
    watch.wait(successes=1)
    file, looks = watch.subject.files[0], 0
    while not file.is_due(time.monotonic()):
        looks += 1
        with path.open("a") as appended:
            appended.write("192.0.2.7\n")
    assert looks == module.RESTLESS_LOOKS_MAX + 1  # the first saw nothing yet


def test_file_that_a_reload_reads_is_left_to_it(watcher: Watcher, path: Path) -> None:
    """What was read before the reload may be older than what the reload has read."""
    watch = Watch(watcher, path)
    watch.wait(successes=1)
    path.write_text("11.0.0.0/8\n")
    watch.until(lambda: watch.subject._is_reading)
    watch.is_settled = False
    watch.until(lambda: not watch.subject._is_reading)
    assert watch.subject.files[0].results["success"] == 1
    now = table("12.0.0.0/8\n", path)
    watch.fleet.serve(path)
    watch.is_settled = True
    assert watch.wait(successes=2).error is None
    assert watch.fleet.tables == [now]


def test_files_are_those_of_the_generation_that_serves(watcher: Watcher, path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("")
    watch = Watch(watcher, path, other)
    watch.wait(successes=1, number=1)
    watch.fleet.serve(other, other)
    watch.wait(successes=2)
    assert [file.name for file in watch.subject.files] == [str(other)]


def test_reading_that_cannot_be_done_says_nothing_about_the_file_and_is_tried_again(
    watcher: Watcher, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN_S", 0.05)

    def fail() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fork", fail)
        watch = Watch(watcher, path)
        error = watch.wait(failures=1).error
        assert error == f"{path}: no process can be started to read it: Resource temporarily unavailable"
    watch.until(lambda: watch.subject.files[0].error is None)


def test_reading_that_takes_too_long_is_given_up(watcher: Watcher, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.05)
    monkeypatch.setattr(module, "_answer", lambda wanted, channel: channel.recv(1))
    assert Watch(watcher, path).wait(failures=1).error == f"{path}: reading it took longer than 0.05 s"


def test_reading_that_fails_is_told(watcher: Watcher, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_answer", lambda wanted, channel: None)
    error = Watch(watcher, path).wait(failures=1).error
    assert error == f"{path}: the process that reads it has failed; standard error says more"


def test_signature_is_why_there_is_none(tmp_path: Path) -> None:
    assert signature_of([str(tmp_path / "nowhere")]) == ((errno.ENOENT,),)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate and its key."""
    chain, key = tmp_path / "app.pem", tmp_path / "app.key"
    chain.write_text(certificate().chain)
    key.write_text(certificate().key)
    return chain, key


def in_force(watch: Watch) -> str:
    tls = watch.fleet.generation.settings.listeners[0].tls
    assert tls is not None
    return tls.certificates[0].chain


def test_certificate_waits_for_its_key_and_nothing_is_called_broken(
    watcher: Watcher, pair: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    chain, key = pair
    watch = Watch(watcher, *pair)
    file = watch.wait(successes=1)
    since_s, renewed = file.since_s, certificate("localhost", 60)
    chain.write_text(renewed.chain)
    watch.until(lambda: file.doubt)
    assert in_force(watch) == certificate().chain
    key.write_text(renewed.key)
    assert watch.wait(successes=2) is file
    assert (file.error, file.doubt, in_force(watch)) == (None, None, renewed.chain)
    assert file.since_s > since_s
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_key_that_never_comes_is_told_once(
    watcher: Watcher, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SETTLE_S", 0.1)
    chain, key = pair
    watch = Watch(watcher, *pair)
    watch.wait(successes=1)
    chain.write_text(certificate("localhost", 60).chain)
    file = watch.wait(successes=1, failures=1)
    assert (file.error or "").startswith(f"{chain}: the key is not that of the chain's first certificate")
    assert [message.endswith("stays in force") for message in caplog.messages] == [True]
    assert in_force(watch) == certificate().chain
    key.write_text(certificate("example.org").key)  # still none: it is called broken at once
    watch.wait(successes=1, failures=2)
    chain.write_text(certificate().chain)
    key.write_text(certificate().key)
    assert watch.wait(successes=2, failures=2).error is None


def test_reload_that_reads_the_same_is_not_since_when_it_is_in_force(watcher: Watcher, pair: tuple[Path, Path]) -> None:
    watch = Watch(watcher, *pair)
    since_s = watch.wait(successes=1).since_s
    watch.fleet.serve(*pair)
    assert watch.wait(successes=2).since_s == since_s
    renewed = certificate("localhost", 60)
    for path, text in zip(pair, (renewed.chain, renewed.key), strict=True):
        path.write_text(text)
    watch.fleet.serve(*pair)
    assert watch.wait(successes=3).since_s > since_s


def told_of(watch: Watch) -> list[str] | None:
    """Have the files read now, and return what came of each."""
    said: list[Any] = []
    watch.subject.read_now({"certificate"}, said.append)
    watch.until(lambda: said)
    return None if said[0] is None else [result for _, result in said[0]]


def test_files_are_read_when_somebody_asks_and_a_pair_that_is_none_is_refused_at_once(
    watcher: Watcher, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 1e9)
    chain, key = pair
    watch = Watch(watcher, *pair)
    assert told_of(watch) == ["unchanged"]
    renewed = certificate("localhost", 60)
    chain.write_text(renewed.chain)
    assert told_of(watch) == ["refused"]
    assert in_force(watch) == certificate().chain
    key.write_text(renewed.key)
    assert told_of(watch) == ["renewed"]
    assert in_force(watch) == renewed.chain
    assert watch.subject.files[0].error is None


def test_who_asks_while_files_are_read_gets_what_they_have_after_that(
    watcher: Watcher, pair: tuple[Path, Path]
) -> None:
    watch = Watch(watcher, *pair)
    said: list[Any] = []
    for _ in range(2):
        watch.subject.read_now({"certificate"}, said.append)
    watch.until(lambda: len(said) == 2)
    assert watch.subject.files[0].results["success"] == 2
    assert [[result for _, result in each] for each in said] == [["unchanged"], ["unchanged"]]


def test_who_asks_is_told_where_there_is_nothing_to_read_and_where_others_do(
    watcher: Watcher, path: Path, pair: tuple[Path, Path]
) -> None:
    assert told_of(Watch(watcher, path)) == []
    watch = Watch(watcher, *pair)
    watch.is_settled = False
    assert told_of(watch) is None
