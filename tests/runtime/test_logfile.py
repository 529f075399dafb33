"""The log as a file: shared, moved away, and full."""

import logging
import os
import stat
from pathlib import Path

import pytest

from gaiod.runtime.logfile import LogFile


def _record(text: str) -> logging.LogRecord:
    return logging.LogRecord("gaiod.x", logging.INFO, __file__, 1, text, (), None)


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
    assert handler.stream is not None
    assert not os.get_inheritable(handler.stream.fileno())
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
    text = capfd.readouterr().err
    assert text.count("/dev/full: cannot be written") == 1
    assert "No space left on device" in text
    with pytest.raises(OSError, match="No space"):
        handler.close()


def test_folder_that_is_gone_costs_lines_and_is_told_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    handler = LogFile(str(folder / "log"))
    (folder / "log").unlink()
    folder.rmdir()
    handler.emit(_record("lost"))
    handler.emit(_record("lost"))
    assert capfd.readouterr().err.count("cannot be written") == 1
    folder.mkdir()
    handler.emit(_record("found"))
    handler.close()
    assert (folder / "log").read_text() == "found\n"
