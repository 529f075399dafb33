"""Reloads and an upgrade under clients that stay connected: what the picture shows holds in seconds, too."""

import subprocess
import sys
from pathlib import Path

import pytest
from changes import describe
from e2e.support.tools import tool
from harness.changes import CLIENTS, Plan, Seen, run

pytestmark = pytest.mark.quiet

BENCH = Path(__file__).parent
DRAW = """
from pathlib import Path
from harness.changes import Seen
from changes import draw
draw({seen!r}, Path({path!r}))
"""
"""In a process of its own: matplotlib leaves its fonts open."""


def test_clients_see_nothing_of_reloads_and_an_upgrade() -> None:
    tool("prometheus", "prometheus")
    seen = run(Plan(unit_s=2.0, every_s=0.5, reloads=2))
    assert seen.ended == 0
    assert [text for _, text in seen.marks] == ["reload", "reload", "upgrade"]
    for name, count in CLIENTS.items():
        assert seen.connections[name][-1][1] == count, "they are the new daemon's"
        assert seen.rates[name][-1][1] > 0


def test_what_was_seen_is_said_and_drawn(tmp_path: Path) -> None:
    series = {name: [(0.5 * i, 1.0) for i in range(40)] for name in CLIENTS}
    seen = Seen([(5.0, "reload"), (10.0, "upgrade")], series, series, 0, 20.0)
    assert describe(seen) == "100 connections; reloads: 1, then an upgrade; connections that ended: 0"
    path = tmp_path / "changes.png"
    pytest.importorskip("matplotlib", reason="matplotlib is missing: pip install 'gaiod[docs]'")
    command = [sys.executable, "-c", DRAW.format(seen=seen, path=str(path))]
    done = subprocess.run(command, cwd=BENCH, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert path.read_bytes().startswith(b"\x89PNG")
