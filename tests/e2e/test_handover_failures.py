"""A hand-over fails at each of its points, in real processes: clients lose only what a dead worker had for certain.

The handler's file puts the fault where it is to be, once, in the giver or in the taker: gaiod has no option for that.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from core.support.sockets import receive
from core.support.waiting import LIMIT_S, TIME_UNIT

from e2e.support.clients import connect, echoes, exchange
from e2e.support.crowd import Seen, crowd
from e2e.support.daemons import Daemon
from e2e.support.handlers import IMPORTS
from e2e.support.procfs import children_of, is_alive, is_stopped
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

CONFIG = """\
workers: 1
metrics: {{listen: "127.0.0.1:0"}}
heartbeat_timeout: 60s
drain_timeout: 60s
handover: {{timeout: {timeout}}}
listeners:
  mine: {{bind: "127.0.0.1:0", handler: ./mine.py, backlog: 4096}}
"""

LONG_BYTES = 24 << 20
"""More than all buffers of the kernel take."""

HANDLER = (
    IMPORTS
    + f"""
import resource
import select
import socket

from gaiod.worker.handover import giver, taker


def is_first(what):
    try:
        os.close(os.open(os.path.join(os.path.dirname(__file__), what), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def once(number):
    if is_first("fault"):
        os.kill(os.getpid(), number)


def once_other(link, number):
    if not is_first("fault"):
        return
    with socket.socket(fileno=os.dup(link._conn.fileno())) as sock:
        pid = int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")
        os.kill(pid, number)
        if number == signal.SIGKILL:  # a zombie's other threads may still hold its sockets
            poll = select.poll()
            poll.register(sock, select.POLLRDHUP)
            assert poll.poll(10_000)
            return
    while open(f"/proc/{{pid}}/stat").read().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.001)


class Mine(gaiod.Handler):
    state_version = 1
    count = 0

    def on_start(self):
        is_later = not is_first("started")
        put_fault(is_later)

    def on_open(self, conn):
        conn.read()

    def on_read(self, conn, result):
        if bytes(result.buffer) == b"long":
            conn.write(bytes(range(256)) * ({LONG_BYTES} // 256))
        else:
            conn.write(result.buffer)

    def on_write(self, conn, result):
        conn.read()

    def on_leave(self, conn):
        self.count += 1
        leave(self.count)
        return b""

    def on_arrive(self, conn, arrival):
        self.count += 1
        arrive(self.count)
        if not conn.pending_write_bytes:
            conn.read()


def put_fault(is_later):
    pass


def leave(count):
    pass


def arrive(count):
    pass


def before(owner, name, fault):
    method = getattr(owner, name)

    def instead(*arguments, **more):
        fault(*arguments, **more)
        return method(*arguments, **more)

    setattr(owner, name, instead)


"""
)

COUNT = 150
PAUSE_S = 0.05

Run = Callable[..., tuple[Daemon, dict[str, Any]]]


@pytest.fixture
def hand_over(daemon: Start, tmp_path: Path) -> Run:
    """A starter of a daemon with a fault, and a crowd that is handed over: what became of it."""

    def hand_over(
        fault: str, *, timeout: str = "1s", meanwhile: Callable[[Daemon, Seen], None] | None = None
    ) -> tuple[Daemon, dict[str, Any]]:
        (tmp_path / "mine.py").write_text(HANDLER + fault)
        running = daemon(CONFIG.format(timeout=timeout))
        with crowd(echo={"address": running.address("mine"), "count": COUNT, "pause_s": PAUSE_S}) as seen:
            wait_until(lambda: seen()["moves"]["echo"] > 2 * COUNT, "the crowd at work")
            running.ask("reload")
            if meanwhile is not None:
                meanwhile(running, seen)
            running.wait_for(" connections over in " if "giver dies" not in fault else "ended by SIGKILL")
            before = seen()["moves"]["echo"]
            # A giver on a busy machine has offered few when it dies.
            more = 3 * COUNT if "giver dies" not in fault else COUNT // 3
            wait_until(lambda: seen()["moves"]["echo"] > before + more, "the crowd at work after it")
            found = seen()
        assert found["wrong"] == []
        assert echoes(running.address("mine"))
        return running, found

    return hand_over


def outcome(running: Daemon) -> tuple[float, dict[str, float]]:
    """Return how many connections have moved, and how many have stayed, by reason."""
    samples = running.scrape()
    name = "gaiod_handover_stayed_total"
    stayed = {labels["reason"]: samples.value(name, **labels) for labels in samples.labels(name)}
    moved = samples.value("gaiod_handover_connections_total", listener="mine", result="moved")
    return moved, {reason: value for reason, value in stayed.items() if value}


def test_without_a_fault_everybody_goes(hand_over: Run) -> None:
    running, found = hand_over("")
    assert outcome(running) == (COUNT, {})
    assert found["ends"] == []


# -- the taker dies ------------------------------------------------------------------------------------------

TAKER_DIES = {
    "before it has said a word": "before(taker._Link, '_hello', lambda *more: once(signal.SIGKILL))",
    "before it accepts": "before(taker._Link, '_build', lambda *more: once(signal.SIGKILL))",
    "while it builds": (
        "before(taker._Link, '_build_unit', lambda link, offer, i, *more: i == 5 and once(signal.SIGKILL))"
    ),
    "after it has accepted": "before(giver._Link, '_take_accept', lambda link, said: once_other(link, signal.SIGKILL))",
}


@pytest.mark.parametrize("fault", TAKER_DIES.values(), ids=TAKER_DIES)
def test_taker_that_dies_before_the_commit_costs_nobody_anything_and_the_next_one_takes_over(
    hand_over: Run, fault: str
) -> None:
    running, found = hand_over(f"def put_fault(is_later):\n    {fault}\n", timeout="20s")
    assert "ended by SIGKILL" in running.log()
    assert outcome(running) == (COUNT, {})
    assert found["ends"] == []
    assert found["longest_s"] < LIMIT_S


def test_handler_that_ends_each_process_where_its_connections_arrive_does_not_end_the_daemon(hand_over: Run) -> None:
    running, found = hand_over("def arrive(count):\n    os._exit(3)\n", timeout="20s")
    assert running.log().count("ended with exit status 3") == 3
    assert outcome(running) == (0, {"lost": COUNT})
    assert found["ends"] == []


def test_taker_that_dies_after_the_commit_costs_those_that_were_committed(hand_over: Run) -> None:
    running, found = hand_over(
        "def put_fault(is_later):\n    giver.UNITS_MAX = 40\n"
        "    before(taker._Link, '_commit', lambda link, *more: once(signal.SIGKILL))\n",
        timeout="20s",
    )
    moved, stayed = outcome(running)
    lost = len(found["ends"])
    assert stayed == {}
    assert (moved, found["connected"]["echo"]) == (COUNT, COUNT - lost)
    assert 0 < lost < COUNT
    wait_until(lambda: running.scrape().total("gaiod_connections_active") == 0, "the clients' end")  # none is left over


# -- the giver dies ------------------------------------------------------------------------------------------

GIVER_DIES = {
    "before it has offered": ("before(giver._Link, 'offer', lambda *more: once(signal.SIGKILL))", 0, 0),
    "after an offer": ("before(giver._Link, 'said', lambda link, what: link.offers and once(signal.SIGKILL))", 1, 120),
    "after a commit": (
        "before(giver._Link, 'said', lambda link, what: isinstance(what, giver._Offer) and once(signal.SIGKILL))",
        1,
        120,
    ),
    "between": (
        "before(giver._Link, 'said', lambda link, what: link._next > 3 and link.offers and once(signal.SIGKILL))",
        40,
        COUNT,
    ),
}


@pytest.mark.parametrize(("fault", "least", "most"), GIVER_DIES.values(), ids=GIVER_DIES)
def test_giver_that_dies_costs_those_that_it_had_not_offered(
    daemon: Start, tmp_path: Path, fault: str, least: int, most: int
) -> None:
    units = "    giver.UNITS_MAX = 20\n"  # several offers
    (tmp_path / "mine.py").write_text(f"{HANDLER}def put_fault(is_later):\n{units}    {fault}\n")
    running = daemon(CONFIG.format(timeout="20s"))
    (old,) = running.workers
    with crowd(echo={"address": running.address("mine"), "count": COUNT, "pause_s": PAUSE_S}) as seen:
        wait_until(lambda: seen()["moves"]["echo"] > 2 * COUNT, "the crowd at work")
        running.ask("reload")
        wait_until(lambda: not is_alive(old), "the giver's death")
        wait_until(lambda: len(seen()["ends"]) >= COUNT - most, "the ends of those that it had not offered")
        before = seen()
        wait_until(lambda: seen()["moves"]["echo"] >= before["moves"]["echo"] + most // 2, "others at work")
        found = seen()
        active = running.scrape().total("gaiod_connections_active")
    assert found["wrong"] == []
    kept = found["connected"]["echo"]
    assert len(found["ends"]) == COUNT - kept
    assert least <= kept <= most
    assert active == kept


# -- a worker hangs ------------------------------------------------------------------------------------------


def stopped(running: Daemon) -> int:
    """Return the worker that has stopped itself, once it has."""

    def look() -> int | None:
        return next((pid for pid in running.workers if is_stopped(pid)), None)

    pid = wait_until(look, "a worker that hangs")
    assert pid is not None
    return pid


def wake_up(running: Daemon, seen: Seen) -> None:
    """Let the taker go on, once the giver serves its clients again although it hangs."""
    pid = stopped(running)
    wait_until(lambda: seen()["silent_s"] > 1.0, "clients that wait")
    wait_until(lambda: seen()["silent_s"] < 1.0, "everybody being served while it hangs")
    assert is_stopped(pid)
    os.kill(pid, signal.SIGCONT)


def wake_up_late(running: Daemon, seen: Seen) -> None:
    """Let the taker go on, once the giver has taken back what it can; what was committed waits."""
    pid = stopped(running)
    wait_until(lambda: seen()["silent_s"] > 3.0, "clients that wait")
    os.kill(pid, signal.SIGCONT)


HANGS = {
    "before it accepts": (
        "before(taker._Link, '_build_unit', lambda link, offer, i, *more: i == 5 and once(signal.SIGSTOP))",
        wake_up,
    ),
    "at the commit": (
        "before(giver._Link, '_take_accept', lambda link, said: once_other(link, signal.SIGSTOP))",
        wake_up_late,
    ),
}
"""Of what was committed to it, the taker has all; of what was not, it has the descriptors, and must not use them."""


@pytest.mark.parametrize(("fault", "meanwhile"), HANGS.values(), ids=HANGS)
def test_taker_that_hangs_and_wakes_up_shares_no_connection_with_the_giver_and_takes_over_then(
    hand_over: Run, fault: str, meanwhile: Callable[[Daemon, Seen], None]
) -> None:
    units = "giver.UNITS_MAX = 20"
    running, found = hand_over(
        f"def put_fault(is_later):\n    {units}\n    {fault}\n", timeout="20s", meanwhile=meanwhile
    )
    assert outcome(running) == (COUNT, {})
    assert found["ends"] == []
    assert found["longest_s"] >= 1.5


def test_taker_that_hangs_before_it_has_received_an_offer_keeps_nobody_waiting(daemon: Start, tmp_path: Path) -> None:
    """The offer is larger than the stream's buffers: there is no room to take it back there."""
    fault = "before(taker._Link, 'said', lambda link, what: once(signal.SIGSTOP))"
    (tmp_path / "mine.py").write_text(f"{HANDLER}def put_fault(is_later):\n    {fault}\n")
    running = daemon(CONFIG.format(timeout="20s"))
    address = running.address("mine")
    with connect(address) as small, connect(address) as large:
        assert exchange(small, b"before") == b"before"
        large.sendall(b"long")
        assert receive(large, 256) == bytes(range(256))
        running.ask("reload")
        pid = stopped(running)
        began_s = time.monotonic()
        assert exchange(small, b"while it hangs") == b"while it hangs"
        assert time.monotonic() - began_s < 2.0 + 3 * TIME_UNIT
        assert receive(large, LONG_BYTES - 256) == bytes(range(256)) * (LONG_BYTES // 256 - 1)
        os.kill(pid, signal.SIGCONT)
        running.wait_for(" connections over in ")
        for sock in (small, large):
            assert exchange(sock, b"after") == b"after"
    assert outcome(running) == (2, {})


def test_giver_that_hangs_until_it_is_killed_leaves_what_it_had_offered(hand_over: Run) -> None:
    """For as long as nobody knows what becomes of it, nobody touches what it had offered."""

    def kill(running: Daemon, seen: Seen) -> None:
        pid = wait_until(
            lambda: next((pid for pid in children_of(running.pid) if is_stopped(pid)), None), "its hanging"
        )
        assert pid is not None
        before = seen()["moves"]["echo"]
        time.sleep(0.2 * TIME_UNIT)
        assert seen()["moves"]["echo"] - before <= COUNT  # one message each, that nobody answers
        os.kill(pid, signal.SIGKILL)

    fault = "before(giver._Link, 'said', lambda link, what: link.offers and once(signal.SIGSTOP))"
    _, found = hand_over(f"def put_fault(is_later):\n    {fault}\n# the giver dies\n", meanwhile=kill)
    kept = found["connected"]["echo"]
    assert 0 < kept <= COUNT
    assert len(found["ends"]) == COUNT - kept


# -- what one cannot do, or does not understand ----------------------------------------------------------------

ONE_IN_TEN = "\n    if count % 10 == 0:\n        raise RuntimeError('a fault')\n"


@pytest.mark.parametrize("hook", ["leave", "arrive"])
def test_hook_that_raises_keeps_its_connection_where_it_is(hand_over: Run, hook: str) -> None:
    running, found = hand_over(f"def {hook}(count):{ONE_IN_TEN}")
    assert outcome(running) == (COUNT - COUNT // 10, {"hook_error": COUNT // 10})
    assert found["ends"] == []
    errors = running.scrape().total("gaiod_handler_errors_total", hook=f"on_{hook}")
    assert errors == COUNT // 10
    assert "a fault" in running.log()


WORDS = {
    "another format": ("taker.FORMAT = taker.FORMAT + 1", "version", "a worker of another version"),
    "garbage of the taker": (
        "taker._Link._say = lambda link, *more, **named: link._conn.write(b'\\xff' * 100)",
        "lost",
        "a worker that takes connections over says what cannot be understood",
    ),
    "nesting without an end": (
        "taker._Link._say = lambda link, *more, **named: "
        "link._conn.write(giver_wire.HEADER.pack(200_000, 0) + b'[' * 200_000)",
        "lost",
        "a worker that takes connections over says what cannot be understood",
    ),
    "garbage of the giver": (
        "giver._Link._say = lambda link, *more, **named: link._conn.write(b'\\xff' * 100)",
        "lost",
        "a worker that hands its connections over says what cannot be understood",
    ),
}


@pytest.mark.parametrize(("fault", "reason", "said"), WORDS.values(), ids=WORDS)
def test_who_does_not_understand_the_other_lets_everybody_stay(
    hand_over: Run, fault: str, reason: str, said: str
) -> None:
    wire = "from gaiod.worker.handover import wire as giver_wire\n"
    running, found = hand_over(f"{wire}def put_fault(is_later):\n    {fault}\n")
    assert outcome(running) == (0, {reason: COUNT})
    assert found["ends"] == []
    assert said in running.log()


def limited(more: str = "") -> str:
    """Return what lets later workers have few descriptors."""
    return (
        "def put_fault(is_later):\n    if is_later:\n        most = len(os.listdir('/proc/self/fd')) + 64 + 50\n"
        f"        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most)){more}\n"
    )


def test_taker_with_few_descriptors_takes_as_many_connections_as_it_has_room_for(hand_over: Run) -> None:
    running, found = hand_over(limited())
    moved, stayed = outcome(running)
    assert 30 <= moved <= 50
    assert stayed == {"descriptors": COUNT - moved}
    assert found["ends"] == []


def test_descriptors_that_the_kernel_drops_on_the_way_cost_nobody_anything(hand_over: Run) -> None:
    """The taker believes that it has room. Of what does not fit, the kernel closes the copies without an error."""
    running, found = hand_over(limited("\n        taker._room = lambda: 1000"))
    moved, stayed = outcome(running)
    assert moved + stayed["descriptors"] == COUNT
    assert stayed["descriptors"] > 0
    assert found["ends"] == []
