"""Readers of files that are read again: what they return is what the settings of workers are made of."""

import json
from pathlib import Path

import pytest

from gaiod.config.admission.access import parse_rule
from gaiod.config.file_readers import READERS, Refused
from gaiod.settings import ListenerSettings
from gaiod.watched_files import KINDS


def test_what_a_reader_returns_is_after_a_journey_what_the_configuration_has(tmp_path: Path) -> None:
    path = tmp_path / "blocked.txt"
    path.write_text("unix:\n10.0.0.0/8\n2001:db8::/32\n")
    wanted = ListenerSettings("front", "127.0.0.1:0", "echo", access=(parse_rule(f"deny file:{path}"),))
    value = json.loads(json.dumps(READERS["access"]((str(path),))))
    path.write_text("")
    before = ListenerSettings("front", "127.0.0.1:0", "echo", access=(parse_rule(f"deny file:{path}"),))
    assert KINDS["access"].renewed(before, (str(path),), value) == wanted != before


def test_broken_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "blocked.txt"
    path.write_text("nonsense\n")
    with pytest.raises(Refused, match="line 1"):
        READERS["access"]((str(path),))
