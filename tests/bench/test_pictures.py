"""The pictures of dashboard and page: the same in seconds shows what happened, and all have something to show."""

import pickle
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.support.tools import tool
from harness.processes import BenchError
from harness.prometheus import Prometheus, Series
from harness.story import Plan, Seen, answer_of, run
from pictures import PAGE_HEIGHT, PAGE_WIDTH, PICTURES, asked, lines_of, panel, photograph

pytestmark = pytest.mark.quiet

BENCH = Path(__file__).parent
DRAW = """
import pickle, sys
from pathlib import Path
from pictures import PICTURES, draw
with open(sys.argv[1], "rb") as file:
    seen = pickle.load(file)
for name, picture in PICTURES.items():
    draw(seen, picture, Path(sys.argv[2]) / f"{name}.png")
"""
"""In a process of its own: matplotlib leaves its fonts open."""

SIZE_MAX_BYTES = 200_000
BLANK_BYTES = 10_000
"""A page with nothing on it takes less than half of this."""
PLAN = Plan(unit_s=1.0, every_s=0.2)
EXPRESSIONS = list(dict.fromkeys(expression for picture in PICTURES.values() for expression in asked(picture)))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The picture of the status page, once there is one."""
    return tmp_path_factory.mktemp("page") / "status.png"


@pytest.fixture(scope="module")
def seen(page: Path) -> Seen:
    """What was seen; that every panel has values is what `run` sees to."""
    tool("prometheus", "prometheus")
    tool("chromium", "chromium")
    return run(PLAN, EXPRESSIONS, lambda url: photograph(url, page))


def _line(seen: Seen, row: str, title: str, legend: str) -> Series:
    """Return the one line of a panel that has this in its legend."""
    ((_, values, _),) = (line for line in lines_of(panel(row, title), seen) if legend in line[0])
    return values


def _between(seen: Seen, values: Series, first: str, last: str) -> list[float]:
    """Return the values between two of the things that happened."""
    moments = {mark.text: mark.at_s for mark in seen.marks}
    return [value for at_s, value in values if moments[first] <= at_s <= moments[last]]


def test_client_that_stalls_is_seen_to_be_waited_for(seen: Seen) -> None:
    paused = _line(seen, "Back-pressure", "Paused connections", "downstream")
    assert max(_between(seen, paused, "client stalls", "it goes on")) == 1
    assert max(_between(seen, paused, "server dies", "reload")) == 0
    held = _line(seen, "Back-pressure", "Bytes held, and the limit of one connection", "downstream buffered")
    assert 0 < max(_between(seen, held, "client stalls", "it goes on")) <= 64 << 10


def test_server_that_dies_is_seen_to_be_left_alone_until_it_is_back(seen: Seen) -> None:
    lines = [values for _, values, _ in lines_of(panel("Upstreams", "Server is up"), seen)]
    assert sorted(min(_between(seen, values, "server dies", "it is back")) for values in lines) == [0, 1]
    assert [values[-1][1] for values in lines] == [1, 1]
    assert {value for values in lines for value in _between(seen, values, "client stalls", "server dies")} == {1}


def test_worker_that_is_killed_and_those_that_are_reloaded_are_seen_to_be_replaced(seen: Seen) -> None:
    killed = _line(seen, "Workers and garbage collection", "Replaced", "worker 0 signal")
    assert max(_between(seen, killed, "client stalls", "worker killed")) == 0
    assert max(_between(seen, killed, "worker killed", "server dies")) >= 1
    for worker in (0, 1):
        reloaded = _line(seen, "Workers and garbage collection", "Replaced", f"worker {worker} reload")
        assert max(_between(seen, reloaded, "worker killed", "reload")) == 0
        assert max(value for _, value in reloaded) >= 1


def test_pictures_are_drawn_and_small(seen: Seen, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is missing: pip install 'gaiod[docs]'")
    (tmp_path / "seen").write_bytes(pickle.dumps(seen))
    command = [sys.executable, "-c", DRAW, str(tmp_path / "seen"), str(tmp_path)]
    done = subprocess.run(command, cwd=BENCH, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    for name in PICTURES:
        picture = (tmp_path / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) < SIZE_MAX_BYTES


def test_page_is_photographed(seen: Seen, page: Path) -> None:
    picture = page.read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert struct.unpack(">II", picture[16:24]) == (PAGE_WIDTH, PAGE_HEIGHT)
    assert BLANK_BYTES < len(picture) < SIZE_MAX_BYTES


@pytest.mark.parametrize("found", [[], [({}, [(1.0, float("nan"))])]], ids=["no series", "nothing but gaps"])
def test_panel_without_values_is_an_error(monkeypatch: pytest.MonkeyPatch, found: object) -> None:
    monkeypatch.setattr(Prometheus, "labelled", lambda *_: found)
    with pytest.raises(BenchError, match=r"rate\(a_total\[800ms\]\) has no value"):
        answer_of(Prometheus(0), PLAN, "rate(a_total[$__rate_interval])", 0.0, 1.0)
