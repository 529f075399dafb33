"""The feeder, from its settings to its exit status, as its supervisor sees it."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from core.support.waiting import LIMIT_S
from e2e.support.feeding import PUSHES
from e2e.support.procfs import WORKER_MAX_KIB, private_kib
from e2e.support.waiting import wait_until

from feeder.support.feeders import FeederUnderTest, started_feeder
from gaiod.stats.feeder_cells import SIZE

HEAVY = {"asyncio", "click", "h11", "importlib.metadata", "prometheus_client", "ssl", "yaml"}


@pytest.fixture
def feeder(tmp_path: Path) -> Iterator[FeederUnderTest]:
    """A feeder that waits for its settings."""
    with started_feeder(tmp_path) as feeder:
        yield feeder


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """A handler with sources."""
    (tmp_path / "mine.py").write_text(PUSHES)
    return f"{tmp_path / 'mine.py'}:Pushes"


def test_feeder_runs_what_it_is_told_and_counts_where_it_is_told(feeder: FeederUnderTest, mine: str) -> None:
    feeder.begin()
    feeder.run(mine, "a", clocks=["a"], greeting="-")
    first, second = feeder.messages(2)
    assert first.startswith(b"-a ")
    assert int(second.split()[1]) == int(first.split()[1]) + 1
    assert feeder.cell(2, "published") >= 2
    assert (feeder.cell(1, "up"), feeder.cell(2, "up")) == (1, 1)


def test_feeder_publishes_what_an_operator_says(feeder: FeederUnderTest, mine: str) -> None:
    feeder.begin()
    feeder.run(mine)
    question = {"verb": "publish", "listener": None, "topic": "news", "message": "hello"}
    feeder.send({"ask": {"id": 5, **question}})
    assert feeder.receive() == {"answer": 5, "result": {"listeners": ["mine"]}}
    feeder.send({"ask": {"id": 6, **question, "topic": "nowhere"}})
    assert "nobody can subscribe to it" in feeder.receive()["result"]["error"]


def test_feeder_ends_with_0_and_stops_its_sources_when_told_to(feeder: FeederUnderTest, mine: str) -> None:
    """A thread that waits for nobody to take its messages would keep the process."""
    feeder.begin()
    feeder.run(mine, "flood", flood=1_000_000)
    feeder.send({"stop": True})
    assert feeder.wait() == 0
    assert feeder.log() == ""
    assert feeder.cell(2, "up") == 0


def test_feeder_ends_when_its_supervisor_is_gone(feeder: FeederUnderTest, mine: str) -> None:
    feeder.begin()
    feeder.run(mine, "a", clocks=["a"])
    feeder.hang_up()
    assert feeder.wait() == 0
    assert "the supervisor is gone; stopping" in feeder.log()


def test_feeder_ends_with_71_when_its_supervisor_goes_before_it_said_anything(feeder: FeederUnderTest) -> None:
    feeder.hang_up()
    assert feeder.wait() == 71
    assert "Traceback" not in feeder.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2])
def test_feeder_goes_on_when_all_processes_get_a_signal(
    feeder: FeederUnderTest, mine: str, number: signal.Signals
) -> None:
    """They mean the supervisor, which ends the feeder last."""
    feeder.begin()
    feeder.run(mine, "a", clocks=["a"])
    feeder.kill(number)
    assert len(feeder.messages(3)) == 3


def test_heartbeat_goes_on_while_nothing_happens(feeder: FeederUnderTest) -> None:
    feeder.begin()
    wait_until(feeder.heartbeat_ns, "the first heartbeat")
    first_ns = feeder.heartbeat_ns()
    wait_until(lambda: feeder.heartbeat_ns() > first_ns, "the next heartbeat")


def test_stack_is_left_behind_when_a_source_hangs(feeder: FeederUnderTest, tmp_path: Path, mine: str) -> None:
    hangs = PUSHES.replace('raise RuntimeError("it is broken")', 'open("hangs", "w").close(); time.sleep(3600)')
    (tmp_path / "mine.py").write_text(hangs)
    (tmp_path / "broken").touch()
    feeder.begin()
    feeder.tell(mine, "broken", broken=True)
    wait_until((tmp_path / "hangs").exists, "the hang")
    feeder.kill(signal.SIGABRT)
    assert feeder.wait() == -signal.SIGABRT
    assert "in start" in feeder.stack()


def test_feeder_whose_log_cannot_be_opened_says_so_and_feeds(
    feeder: FeederUnderTest, tmp_path: Path, mine: str
) -> None:
    feeder.begin(file=str(tmp_path / "no" / "gaiod.log"))
    feeder.run(mine, "a", clocks=["a"])
    assert len(feeder.messages(1)) == 1
    assert "log.file: cannot write" in feeder.log()


def test_feeder_of_another_version_than_its_supervisor_says_so(feeder: FeederUnderTest) -> None:
    """It was started again after another version was installed, and would count where nobody looks."""
    feeder.begin(cells=SIZE + 1)
    assert feeder.wait() == 78
    assert "its supervisor runs another version: run gaiod upgrade" in feeder.log()


def test_feeder_imports_nothing_heavy() -> None:
    """Sources do, if they need it."""
    code = "import sys, gaiod.feeder.process; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    assert HEAVY & set(done.stdout.split()) == set()


def test_feeder_is_small(feeder: FeederUnderTest, mine: str) -> None:
    feeder.begin()
    feeder.run(mine, "a", clocks=["a"])
    feeder.messages(1)
    assert private_kib(feeder.pid) < WORKER_MAX_KIB
