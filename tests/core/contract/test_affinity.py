"""Point 10: the CPU is checked against those the process may use, and the loop's thread is bound to it."""

import os
import re
from collections.abc import Callable, Iterator

import pytest

from gaiod.core.errors import NoSuchCore
from gaiod.core.watcher import Watcher

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity on this system")

CALLS: dict[str, Callable[[Watcher, int], None]] = {
    "loop": lambda watcher, cpu: watcher.set_loop_affinity(cpu),
    "poller": lambda watcher, cpu: watcher.set_poller_affinity(cpu),
}


@pytest.fixture
def usable() -> Iterator[list[int]]:
    """The CPUs of this process, and again at the end."""
    cpus = os.sched_getaffinity(0)
    yield sorted(cpus)
    os.sched_setaffinity(0, cpus)


@pytest.mark.parametrize("which", CALLS)
def test_affinity_binds_the_thread_of_the_loop_from_its_next_pass_on(
    watcher: Watcher, usable: list[int], which: str
) -> None:
    CALLS[which](watcher, usable[-1])
    assert watcher.wait_io(0) == []
    assert os.sched_getaffinity(0) == {usable[-1]}


@pytest.mark.parametrize("which", CALLS)
@pytest.mark.parametrize("cpu", [4096, -1])
def test_affinity_to_a_cpu_that_does_not_exist_is_refused(
    watcher: Watcher, usable: list[int], which: str, cpu: int
) -> None:
    with pytest.raises(NoSuchCore, match=f"CPU {cpu}: this process may use {re.escape(', '.join(map(str, usable)))}"):
        CALLS[which](watcher, cpu)
    watcher.wait_io(0)
    assert sorted(os.sched_getaffinity(0)) == usable


@pytest.mark.parametrize("which", CALLS)
def test_affinity_to_a_cpu_outside_those_of_the_process_is_refused(
    watcher: Watcher, usable: list[int], which: str
) -> None:
    """The machine has it, the process may not use it: counting CPUs would not tell."""
    if len(usable) < 2:
        pytest.skip("one CPU only")
    os.sched_setaffinity(0, usable[:1])
    with pytest.raises(NoSuchCore, match=f"CPU {usable[1]}"):
        CALLS[which](watcher, usable[1])
