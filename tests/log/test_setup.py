"""The log of a process: replaced as settings say, and never the end of a daemon."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from core.support.logs import log_as_before

from gaiod.log.setup import LogError, configure_log, lost_lines
from gaiod.settings import LogSettings


@pytest.fixture
def root_log() -> Iterator[logging.Logger]:
    """The root logger, without handlers; it is as it was afterwards."""
    with log_as_before() as root:
        root.handlers = []
        yield root


def test_configure_replaces_what_was_configured_before(
    root_log: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    configure_log(LogSettings(), role="a")
    configure_log(LogSettings(format="json"), role="b")
    assert len(root_log.handlers) == 1
    logging.getLogger("gaiod.x").info("once")
    (text,) = capfd.readouterr().err.splitlines()
    assert json.loads(text)["process"] == "b"


def test_log_goes_on_as_before_when_a_file_cannot_be_opened(
    root_log: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    configure_log(LogSettings(), role="a")
    with pytest.raises(LogError, match=r"log\.file: cannot write /no/such/folder/log: No such file or directory"):
        configure_log(LogSettings(file="/no/such/folder/log"), role="a")
    logging.getLogger("gaiod.x").info("still there")
    assert "still there" in capfd.readouterr().err


def test_full_disk_neither_stops_a_change_of_the_log_nor_goes_uncounted(
    root_log: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    configure_log(LogSettings(file="/dev/full"), role="a")
    logging.getLogger("gaiod.x").info("lost")
    assert lost_lines() == 1
    configure_log(LogSettings(), role="b")
    logging.getLogger("gaiod.x").info("found")
    assert "b: found" in capfd.readouterr().err


def test_fifo_that_nobody_reads_is_refused_at_once(root_log: logging.Logger, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(LogError, match="start its reader"):
        configure_log(LogSettings(file=str(tmp_path / "fifo")), role="a")


def test_log_costs_a_worker_no_heavy_modules() -> None:
    program = (
        "import sys, gaiod.worker.connection_log; print(*{'logging.handlers', 'pickle', 'datetime'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == ""
