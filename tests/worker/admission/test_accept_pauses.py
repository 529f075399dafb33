"""How long a listener did not accept, by why."""

import errno
import socket
import time
from collections import Counter

import pytest
from core.support.descriptors import descriptors_limited_to

from gaiod.worker.admission.accept_pauses import AcceptPauses
from worker.conftest import Serve
from worker.support.serving import Recorder


class Resting:
    """A socket that has rested since a time."""

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s

    def rested_s(self, now_s: float) -> float:
        return now_s - self.since_s


@pytest.mark.parametrize(
    ("code", "reason"),
    [(errno.EMFILE, "fd"), (errno.ENFILE, "fd"), (errno.ENOBUFS, "memory"), (errno.ENOMEM, "memory")],
)
def test_rest_that_goes_on_is_counted_for_its_reason_each_time_it_is_looked_at(code: int, reason: str) -> None:
    counted: Counter[str] = Counter()
    rests = AcceptPauses(lambda why, ns: counted.update({why: ns}))
    sockets = [Resting(time.monotonic())]
    rests.failed(sockets, code)  # type: ignore[arg-type]
    began = counted.total()
    sockets[0].since_s -= 5
    rests.look(sockets)  # type: ignore[arg-type]
    first = counted[reason]
    sockets[0].since_s -= 5
    rests.look(sockets)  # type: ignore[arg-type]
    assert 4.9e9 <= first - began < counted[reason] - 4.9e9
    rests.look([])  # closed: what was counted stays
    assert counted[reason] >= 10e9


def test_listener_counts_its_rests_and_no_more_once_there_are_descriptors(serve: Serve) -> None:
    serving = serve(Recorder(), idle_timeout_s=1.0)
    serving.exchange(serving.connect(), b"before")
    assert serving.count("accept_paused_fd_ns") == 0
    with socket.socket() as late:
        with descriptors_limited_to(0):
            late.connect(serving.address)
            serving.step_until(lambda: serving.count("accept_error_EMFILE") >= 3, "accept() tried again twice")
        assert serving.exchange(late, b"late") == b"late"
    serving.listener.stop_accepting()
    paused_s = serving.count("accept_paused_fd_ns") / 1e9
    assert paused_s >= 0.19  # two rests of 0.1 s
    assert serving.count("accept_paused_memory_ns") == 0
