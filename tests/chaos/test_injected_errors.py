"""System calls that fail: each costs the one connection it was for, if any, and the worker neither ends nor spins.

An error of the poller is the exception, by contract: nobody can go on without it, so that worker
dies, and is replaced.
"""

import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from core.support.waiting import TIME_UNIT, compiled_only
from e2e.support.daemons import Daemon
from e2e.support.procfs import is_alive
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

from chaos.support.daemons import many, workers_of
from chaos.support.injection import injected
from chaos.support.load import Load

pytestmark = [pytest.mark.chaos, compiled_only]  # Python's own calls are others: read and write

FEW, ALL = (1, 3), range(1, 51)
"""Which call fails: each number is an injection of its own."""

LACK = ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM")
ACCEPT_ERRORS = (*LACK, "ECONNABORTED")
NETWORK_ERRORS = ("ENOMEM", "ENOBUFS", "ECONNRESET", "ETIMEDOUT", "EHOSTUNREACH")


def few_and_all(*errors: str) -> list[object]:
    """Return the short form for the first error, and the long one for all of them."""
    long = [pytest.param(error, ALL, marks=pytest.mark.slow, id=f"{error}-long") for error in errors]
    return [pytest.param(errors[0], FEW, id=f"{errors[0]}-short"), *long]


class Scene:
    """A daemon of two workers with clients that stay and clients that come and go; one worker's calls will fail."""

    def __init__(self, daemon: Start, folder: Path, stack: ExitStack) -> None:
        self.running: Daemon = daemon(many(folder))
        self.folder = folder
        self.victim, self.other = workers_of(self.running)
        address = self.running.address("mine")
        self.steady = stack.enter_context(Load(address, 20, pause_s=0.02))
        self.passing = stack.enter_context(Load(address, 4, pause_s=0.01, messages_per_connection=1))
        self.steady.wait_until_served()

    def inject(self, call: str, error: str, when: str, *, times: int = 1) -> int:
        """Have calls of the victim fail until so many have; return how many did in the end."""
        with injected(self.folder, self.victim, call, error, when) as injection:
            wait_until(lambda: injection.count() >= times, f"{error} from {call}")
            self.steady.wait_until_served()
        return injection.count()

    def check_nobody_noticed(self) -> None:
        """See that all connections are as they were, and still answered."""
        assert sorted(workers_of(self.running)) == sorted((self.victim, self.other))
        answered, closed = self.steady.answered, self.passing.closed
        wait_until(lambda: self.steady.answered > answered + 40 and self.passing.closed > closed + 8, "more answers")
        for load in (self.steady, self.passing):
            assert not load.ends and not load.wrong and not load.connect_errors


@pytest.mark.parametrize(("error", "numbers"), few_and_all(*ACCEPT_ERRORS))
def test_accept_that_fails_is_counted_and_tried_again(
    daemon: Start, tmp_path: Path, error: str, numbers: range
) -> None:
    with ExitStack() as stack:
        scene = Scene(daemon, tmp_path, stack)
        failed = sum(scene.inject("accept4", error, str(number)) for number in numbers)
        scene.check_nobody_noticed()
        assert scene.running.scrape().total("gaiod_accept_errors_total", errno=error) == failed
    assert "ERROR" not in scene.running.log()


@pytest.mark.parametrize("error", [LACK[0], *(pytest.param(error, marks=pytest.mark.slow) for error in LACK[1:])])
def test_accept_that_fails_for_a_while_is_tried_ten_times_a_second(daemon: Start, tmp_path: Path, error: str) -> None:
    """Those that are connected go on; nobody new is served by that worker, and all are afterwards."""
    with ExitStack() as stack:
        scene = Scene(daemon, tmp_path, stack)
        with injected(tmp_path, scene.victim, "accept4", error, "1+") as injection:
            late = stack.enter_context(Load(scene.running.address("mine"), 20, pause_s=0.02))
            wait_until(lambda: injection.count() > 0 and late.workers[scene.other] > 0, "a rest")
            began_s, before = time.monotonic(), injection.calls()
            time.sleep(1.0)  # to measure, not to wait
            rate = (injection.calls() - before) / (time.monotonic() - began_s)
            assert rate < 20
            assert late.workers[scene.victim] == 0
        late.wait_until_served()
        scene.check_nobody_noticed()
        assert not late.ends and not late.wrong and not late.connect_errors


@pytest.mark.parametrize("call", ["accept4", "recvfrom", "sendto", "epoll_wait"])
@pytest.mark.parametrize("numbers", [FEW, pytest.param(ALL, marks=pytest.mark.slow)], ids=["short", "long"])
def test_interrupted_call_is_made_again(daemon: Start, tmp_path: Path, call: str, numbers: range) -> None:
    with ExitStack() as stack:
        scene = Scene(daemon, tmp_path, stack)
        for number in numbers:
            scene.inject(call, "EINTR", str(number))
        scene.inject(call, "EINTR", "1..39+2", times=20)
        scene.check_nobody_noticed()
    assert "ERROR" not in scene.running.log()


@pytest.mark.parametrize("call", ["recvfrom", "sendto"])
@pytest.mark.parametrize(
    ("error", "numbers"), few_and_all("ENOMEM", "ENOBUFS", "ECONNRESET", "ETIMEDOUT", "EHOSTUNREACH")
)
def test_failed_receive_or_send_costs_its_connection_only(
    daemon: Start, tmp_path: Path, call: str, error: str, numbers: range
) -> None:
    """Each failure ends one connection; a client that was about to go may not notice."""
    with ExitStack() as stack:
        scene = Scene(daemon, tmp_path, stack)
        failed = sum(scene.inject(call, error, str(number)) for number in numbers)
        failed += scene.inject(call, error, "1..21+5", times=5)
        ends = [*scene.steady.ends, *scene.passing.ends]
        assert sorted(workers_of(scene.running)) == sorted((scene.victim, scene.other))
        assert 0 < len(ends) <= failed
        assert {end.worker for end in ends} <= {scene.victim, None}
        assert not scene.steady.wrong and not scene.passing.wrong
        assert not scene.steady.connect_errors and not scene.passing.connect_errors
        reason = {"ETIMEDOUT": "keepalive", "EHOSTUNREACH": "unreachable", "ECONNRESET": "peer_reset"}.get(
            error, "error"
        )
        scrape = scene.running.scrape()
        closed = sum(scrape.total("gaiod_connections_closed_total", reason=each) for each in (reason, "user_timeout"))
        assert closed >= len(ends)
        scene.steady.ends.clear()
        scene.passing.ends.clear()
        scene.check_nobody_noticed()
    assert "ERROR" not in scene.running.log()


@pytest.mark.parametrize(
    ("error", "number"),
    [
        pytest.param(error, number, marks=() if (error, number) == ("EBADF", 1) else pytest.mark.slow)
        for error in ("EBADF", "EINVAL", "ENOMEM")
        for number in (1, 2, 5, 20, 50)
    ],
)
def test_dead_poller_costs_its_worker_which_is_replaced(daemon: Start, tmp_path: Path, error: str, number: int) -> None:
    with ExitStack() as stack:
        scene = Scene(daemon, tmp_path, stack)
        time.sleep(1.1 * TIME_UNIT)  # a worker that has served for a second is replaced at once
        with injected(tmp_path, scene.victim, "epoll_wait", error, str(number)):
            wait_until(lambda: not is_alive(scene.victim), "the worker's end")
        scene.running.wait_for("serves again")
        scene.steady.wait_until_served()
        (replacement,) = set(workers_of(scene.running)) - {scene.other}
        wait_until(lambda: scene.steady.workers[replacement] + scene.steady.workers[scene.other] == 20, "all served")
        assert {end.worker for end in scene.steady.ends} == {scene.victim}
        assert {end.worker for end in scene.passing.ends} <= {scene.victim, None}
        assert not scene.steady.wrong and not scene.passing.wrong
        assert not scene.steady.connect_errors and not scene.passing.connect_errors
    assert "Bad file descriptor" in scene.running.log() or error != "EBADF"
