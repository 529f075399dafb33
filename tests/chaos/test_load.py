"""The load itself: it has to notice what the other tests say does not happen."""

import errno
from pathlib import Path

import pytest
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

from chaos.support.daemons import NAMED, kill, many, workers_of
from chaos.support.load import Load

pytestmark = [pytest.mark.chaos, pytest.mark.quiet]

TWENTIETH = "        self.answers = getattr(self, 'answers', 0) + 1\n        if self.answers == 20:\n            "
HONEST = "        conn.write(result.buffer)"


def lying(lie: str) -> str:
    """Return the text of an echo that does something else for once."""
    return NAMED.replace(HONEST, f"{TWENTIETH}{lie}\n        else:\n    {HONEST}")


@pytest.mark.parametrize(
    "lie",
    [
        "conn.write(bytes(len(result.buffer)))",
        "conn.write(bytes(result.buffer) + b'more')",
        "conn.write(2 * bytes(result.buffer))",
        "conn.write(bytes(result.buffer)[1:] + b'.')",
    ],
    ids=["other", "longer", "twice", "shifted"],
)
def test_bytes_that_were_not_sent_are_noticed(daemon: Start, tmp_path: Path, lie: str) -> None:
    running = daemon(many(tmp_path, workers=1, handler=lying(lie)))
    with Load(running.address("mine"), 2, pause_s=0.001) as load:
        wait_until(lambda: load.wrong, "a wrong answer")
    assert not load.ends


@pytest.mark.parametrize("lie", ["conn.close()", "conn.abort()"])
def test_message_whose_connection_ends_is_lost(daemon: Start, tmp_path: Path, lie: str) -> None:
    running = daemon(many(tmp_path, workers=1, handler=lying(lie)))
    (worker,) = workers_of(running)
    with Load(running.address("mine"), 2, pause_s=0.001, message_bytes=100) as load:
        wait_until(lambda: load.ends, "an end")
        load.wait_until_served()
    assert [(end.worker, end.lost) for end in load.ends] == [(worker, 100)]
    assert not load.wrong


def test_part_of_a_message_that_is_not_answered_is_lost(
    daemon: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chaos.support.load.LIMIT_S", 0.2)
    running = daemon(many(tmp_path, workers=1, handler=lying("conn.write(bytes(result.buffer)[:30])")))
    with Load(running.address("mine"), 2, pause_s=0.001, message_bytes=100) as load:
        wait_until(lambda: load.answered > 40, "answers to the other client")
    assert [(end.lost, end.error) for end in load.ends] == [(70, errno.ETIMEDOUT)]


def test_refused_connects_and_ends_are_counted(daemon: Start, tmp_path: Path) -> None:
    running = daemon(many(tmp_path, workers=1))
    (worker,) = workers_of(running)
    with Load(running.address("mine"), 5, pause_s=0.001) as load:
        load.wait_until_served()
        kill(running.pid)
        running.wait()
        wait_until(lambda: len(load.connect_errors) >= 5, "refused connects")
    assert set(load.connect_errors) <= {errno.ECONNREFUSED, errno.ECONNRESET}
    assert [end.worker for end in load.ends].count(worker) == 5


def test_latencies_are_those_of_a_period_and_a_worker(daemon: Start, tmp_path: Path) -> None:
    slow = lying("time.sleep(0.2); conn.write(result.buffer)")
    running = daemon(many(tmp_path, workers=1, handler=slow))
    (worker,) = workers_of(running)
    with Load(running.address("mine"), 1, pause_s=0.001) as load:
        wait_until(lambda: load.answered > 40, "answers")
    assert load.percentile_s(1.0, 0, float("inf"), worker=worker) >= 0.2
    assert load.percentile_s(0.5, 0, float("inf")) < 0.2
    with pytest.raises(AssertionError):
        load.percentile_s(0.5, 0, float("inf"), worker=worker + 1)
