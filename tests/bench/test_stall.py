"""A server that stops reading behind the proxy, for seconds: what the picture of a minute shows holds there, too."""

import subprocess
import sys
from pathlib import Path

import pytest
from e2e.support.tools import tool
from harness.stalls import Plan, Stall, run
from stall import KIB, MIB, describe

pytestmark = pytest.mark.quiet

BENCH = Path(__file__).parent
DRAW = """
from pathlib import Path
from harness.stalls import Stall
from stall import draw
draw({seen!r}, Path({path!r}), 2.0)
"""
"""In a process of its own: matplotlib leaves its fonts open."""

LIMIT = 64 * KIB
PLAN = Plan(flow_s=1.0, stall_s=2.5, buffer_limit=LIMIT, every_s=0.2)
SETTLED_S = 1.5
"""After the pause's begin: the kernel's buffers are full, and the last byte that flowed has left the rate."""

GROWTH_MAX_BYTES = MIB
"""An allocator's reserve. Without a limit there would be a gigabyte after a second."""


@pytest.fixture(scope="module")
def stall() -> Stall:
    """What was seen of the stream, which lost no byte."""
    tool("prometheus", "prometheus")
    return run(PLAN)


def test_nothing_piles_up_while_the_server_does_not_read(stall: Stall) -> None:
    buffered, resident = stall.during("buffered", SETTLED_S), stall.during("resident")
    assert len(buffered) >= 3
    assert all(0 < each <= LIMIT for each in buffered)
    assert {value for _, value in stall.series["limit"]} == {LIMIT}
    assert set(stall.during("paused", SETTLED_S)) == {1}
    assert set(stall.during("from_client", SETTLED_S)) == set(stall.during("to_server", SETTLED_S)) == {0}
    assert max(resident) - min(resident) < GROWTH_MAX_BYTES
    assert stall.series["resident"][-1][1] - resident[0] < GROWTH_MAX_BYTES


def test_stream_flows_before_and_after(stall: Stall) -> None:
    for name in ("from_client", "to_server"):
        before = [value for at_s, value in stall.series[name] if at_s < stall.began_s]
        after = [value for at_s, value in stall.series[name] if at_s > stall.resumed_s]
        assert max(before) > MIB < max(after)
    assert stall.sent == stall.received


def test_what_was_seen_is_said_and_drawn(tmp_path: Path) -> None:
    series = dict.fromkeys(("buffered", "limit", "paused", "resident", "from_client", "to_server"))
    moments = [0.5 * i for i in range(40)]
    seen = Stall(5.0, 15.0, 15.1, MIB, MIB, {name: [(at_s, 3.0 * MIB) for at_s in moments] for name in series})
    assert "worker RSS 3.0 to 3.0 MiB" in describe(seen)
    pytest.importorskip("matplotlib", reason="matplotlib is missing: pip install 'gaiod[docs]'")
    command = [sys.executable, "-c", DRAW.format(seen=seen, path=str(tmp_path / "made" / "picture.png"))]
    done = subprocess.run(command, cwd=BENCH, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "made" / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_pause_that_is_too_short_to_see_anything_is_refused() -> None:
    command = [sys.executable, str(BENCH / "stall.py"), "--stall", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "--stall 1: the kernel's buffers fill up first; write more than 3" in done.stderr
