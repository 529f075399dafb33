"""The watcher in a simulated kernel: seeds that must pass, and faults that they must find.

A seed that fails is printed shrunk. Again, and others: `python -m core.simulation --first SEED --seeds 1`, in tests/.
"""

import errno
import os
import select
import socket
from collections.abc import Callable
from dataclasses import replace

import pytest

from core.simulation.files import CONNECTED, Sock
from core.simulation.mutations import IMAGINED, MENDED, Mutation, mutated
from core.simulation.plan import plan_of
from core.simulation.run import failure_of, first_failure, trace_of
from core.simulation.setting import Plan, Setting
from core.simulation.shrink import report, script_of, shrink
from core.support.sockets import connected_pair, reset
from core.support.waiting import interpreted_only

pytestmark = interpreted_only

SEEDS = 10_000
"""Of the short form; and by then, each of the mutations must have been found."""

CHUNK = 1000


def check(first: int, count: int) -> None:
    failed = first_failure(range(first, first + count))
    assert failed is None, report(failed[0])


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_watcher_keeps_its_contract_whatever_a_seed_does(first: int) -> None:
    check(first, CHUNK)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(SEEDS, 1_000_000, 10 * CHUNK))
def test_watcher_keeps_its_contract_over_a_million_seeds(first: int) -> None:
    check(first, 10 * CHUNK)


@pytest.mark.parametrize("mutation", MENDED + IMAGINED, ids=lambda mutation: mutation.fault)
def test_fault_that_is_put_in_is_found(mutation: Mutation) -> None:
    with mutated(mutation):
        assert first_failure(range(SEEDS)) is not None


@pytest.mark.parametrize("seed", range(20))
def test_seed_does_the_same_every_time(seed: int) -> None:
    assert trace_of(plan_of(seed)) == trace_of(plan_of(seed))


def test_plan_that_fails_is_shrunk_to_what_it_fails_of() -> None:
    needed = ("write", 3, 1, "bytes", None)
    steps = (*plan_of(1).steps, ("wait", 10, 5, False, ((1, needed), (2, ("post",)))), *plan_of(2).steps)

    def fails(plan: Plan) -> bool:
        return any(step[0] == "wait" and needed in [inner for _, inner in step[4]] for step in plan.steps)

    small = shrink(Plan(replace(plan_of(1).setting, interrupted=4), steps), fails)
    assert small == Plan(Setting(), (("wait", 0, 1, False, ((1, needed),)),))


def test_script_of_a_plan_is_python_that_makes_it_again() -> None:
    plan = plan_of(7)
    assert eval(script_of(plan), {"Plan": Plan, "Setting": Setting}) == plan


def test_steps_pass_over_what_is_not_there() -> None:
    """So a plan of which steps were left out can be done."""
    plan = plan_of(11)
    for i in range(len(plan.steps)):
        assert failure_of(replace(plan, steps=plan.steps[i : i + 1])) is None


# -- the simulated kernel is like the real one ----------------------------------------------------------


def real_bits(sock: socket.socket) -> int:
    """Return what epoll tells of a real socket."""
    with select.epoll() as epoll:
        epoll.register(sock, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP)
        return sum(bits for _, bits in epoll.poll(0))


def outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


SENT: tuple[str, ...] = ("far sends",)
HISTORIES = (
    (), SENT, ("far finishes",), (*SENT, "far finishes"), ("finish",), ("finish", "far finishes"), ("far closes",),
    (*SENT, "far closes"), ("send", "far closes"), ("far resets",), (*SENT, "far resets"), ("far resets", "read"),
    (*SENT, "read", "far resets"), ("far resets", "send"), ("far closes", "send"), ("finish", "send"),
    (*SENT, "finish", "read"),
)  # fmt: skip


@pytest.mark.parametrize("history", HISTORIES, ids=" then ".join)
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_simulated_socket_tells_what_a_real_one_tells(family: socket.AddressFamily, history: tuple[str, ...]) -> None:
    is_unix = family == socket.AF_UNIX
    if is_unix and "far resets" in history:
        pytest.skip("a unix socket cannot be reset")
    near, far = connected_pair(family)
    with near, far:
        near.setblocking(False)
        sock = Sock(1, 100, 100, is_unix)
        sock.state = CONNECTED
        for event in history:
            real: dict[str, Callable[[], object]] = {
                "far sends": lambda: far.send(b"123"), "far finishes": lambda: far.shutdown(socket.SHUT_WR),
                "far closes": far.close, "far resets": lambda: reset(far),
                "finish": lambda: near.shutdown(socket.SHUT_WR),
                "read": lambda: len(os.read(near.fileno(), 10)), "send": lambda: os.write(near.fileno(), b"123"),
            }  # fmt: skip
            simulated: dict[str, Callable[[], object]] = {
                "far sends": lambda: sock.far_send(3), "far finishes": sock.far_finish, "far closes": sock.far_close,
                "far resets": sock.far_reset, "finish": lambda: setattr(sock, "fin_out", True),
                "read": lambda: len(sock.read(10)), "send": lambda: sock.write(b"123"),
            }  # fmt: skip
            expected, found = outcome(real[event]), outcome(simulated[event])
            if event in ("read", "send"):
                assert found == expected
        if history == ("far closes", "send") and not is_unix:
            sock.far_reset()  # the kernel does this, after the call
        assert sock.mask() == real_bits(near)
        assert outcome(lambda: len(sock.read(10))) == outcome(lambda: len(os.read(near.fileno(), 10)))
