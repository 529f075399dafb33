"""The log as a file: shared, moved away, and full."""

import errno
import logging
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from core.support.descriptors import open_descriptors

from gaiod.log.output import STDERR, LogFile, LogOutput


def _record(text: str) -> logging.LogRecord:
    return logging.LogRecord("gaiod.x", logging.INFO, __file__, 1, text, (), None)


def _leads_to(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False  # the descriptor that listed the descriptors


def _full_disk(write: Callable[[int, bytes], int], space_bytes: int = 0) -> Callable[[int, bytes], int]:
    """Return an os.write that has so much space; standard error is no disk."""
    left = space_bytes

    def write_some(fd: int, data: bytes) -> int:
        nonlocal left
        if fd == STDERR:
            return write(fd, data)
        if left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(fd, data[:left])
        left -= written
        return written

    return write_some


def test_lines_are_appended_to_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    first, second = LogFile(str(path)), LogFile(str(path))
    first.emit(_record("one"))
    second.emit(_record("two"))
    first.emit(_record("three"))
    first.close()
    second.close()
    assert path.read_text() == "before\none\ntwo\nthree\n"


def test_file_is_not_for_everybody_and_not_for_children(tmp_path: Path) -> None:
    path = tmp_path / "log"
    handler = LogFile(str(path))
    assert stat.S_IMODE(path.stat().st_mode) & 0o037 == 0
    (fd,) = [fd for fd in open_descriptors() if _leads_to(fd, path)]
    assert not os.get_inheritable(fd)
    handler.close()


@pytest.mark.parametrize("how", ["renamed", "removed"])
def test_file_that_is_gone_is_made_anew(tmp_path: Path, how: str) -> None:
    path = tmp_path / "log"
    handler = LogFile(str(path))
    handler.emit(_record("old"))
    if how == "renamed":
        path.rename(tmp_path / "log.1")
    else:
        path.unlink()
    handler.emit(_record("new"))
    handler.close()
    assert path.read_text() == "new\n"


def test_full_disk_costs_lines_and_is_told_once(capfd: pytest.CaptureFixture[str]) -> None:
    handler = LogFile("/dev/full")
    for _ in range(3):
        handler.emit(_record("lost"))
    handler.close()
    assert handler.lost == 3
    assert capfd.readouterr().err == "log.file /dev/full: lines are lost: [Errno 28] No space left on device\n"


def test_lines_that_were_lost_are_told_of_when_the_disk_has_space_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log"
    handler = LogFile(str(path))
    for round_ in ("first", "second"):
        with monkeypatch.context() as disk:
            disk.setattr(os, "write", _full_disk(os.write))
            handler.emit(_record("lost"))
            handler.emit(_record("lost"))
        assert "lines are lost" in capfd.readouterr().err, f"told anew, the {round_} time"
        handler.emit(_record("found"))
    handler.close()
    told = ["2 lines were lost here: [Errno 28] No space left on device", "found"]
    assert path.read_text().splitlines() == told * 2
    assert handler.lost == 4


def test_line_that_was_cut_short_does_not_swallow_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log"
    handler = LogFile(str(path))
    with monkeypatch.context() as disk:
        disk.setattr(os, "write", _full_disk(os.write, space_bytes=4))
        handler.emit(_record("lost in the middle"))
    handler.emit(_record("found"))
    handler.close()
    assert path.read_text().splitlines()[0::2] == ["lost", "found"]


def test_line_that_is_taken_in_parts_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    handler = LogFile(str(path))
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    handler.emit(_record("in parts"))
    handler.emit(_record("as well"))
    handler.close()
    assert path.read_text() == "in parts\nas well\n"


def test_record_that_cannot_be_formatted_costs_its_line_only(tmp_path: Path) -> None:
    class Rude:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    path = tmp_path / "log"
    handler = LogFile(str(path))
    record = _record("%s")
    record.args = (Rude(),)
    handler.emit(record)
    handler.emit(_record("found"))
    handler.close()
    assert path.read_text() == "1 lines were lost here: no\nfound\n"


def test_closed_log_loses_lines_and_opens_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log"
    handler = LogFile(str(path))
    handler.close()
    path.unlink()
    handler.emit(_record("lost"))
    assert handler.lost == 1
    assert not path.exists()
    handler.close()


def test_standard_error_that_is_gone_costs_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """`2>&-`: the next file or socket that is opened gets the number 2."""
    monkeypatch.setattr(sys, "__stderr__", None)
    handler = LogOutput()
    handler.emit(_record("lost"))
    assert handler.lost == 1


def test_folder_that_is_gone_costs_no_lines_of_the_old_file_and_is_told_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    handler = LogFile(str(folder / "log"))
    (folder / "log").rename(tmp_path / "old")
    folder.rmdir()
    handler.emit(_record("still"))
    handler.emit(_record("there"))
    said = f"log.file {folder}/log: cannot be opened anew: No such file or directory"
    assert capfd.readouterr().err == f"{said}; the log goes on in the file that was open\n"
    assert (tmp_path / "old").read_text() == "still\nthere\n"
    assert handler.lost == 0
    folder.mkdir()
    handler.emit(_record("found"))
    handler.close()
    assert (folder / "log").read_text() == "found\n"
