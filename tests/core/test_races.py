"""Races, one interleaving each, held open at the place where it hurts. The interpreted engine can be held."""

import os
import threading
from collections import deque
from typing import Any

import pytest

from core.support.sockets import NewPair, receive
from core.support.waiting import LIMIT_S, MOMENT_S, collect_one, contexts, interpreted_only, soon
from gaiod.core.errors import WatcherClosed
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher

pytestmark = interpreted_only


class Gate:
    """A lock that tells when somebody waits for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.awaited = threading.Event()

    def __enter__(self) -> None:
        if self.lock.locked():
            self.awaited.set()
        self.lock.acquire()

    def __exit__(self, *exception: object) -> None:
        self.lock.release()


class Collector:
    """A thread that waits until the watcher is closed; what completed, and what was raised."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.done: list[OpResult] = []
        self.raised: list[BaseException] = []
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        try:
            while True:
                self.done += self.watcher.wait_io(LIMIT_S)
        except WatcherClosed:
            pass
        except BaseException as error:
            self.raised.append(error)

    def join(self) -> None:
        self.thread.join(LIMIT_S)
        assert not self.thread.is_alive()
        assert self.raised == []


def test_wait_that_begins_while_a_close_answers_the_inbox_leaves_that_alone(monkeypatch: Any) -> None:
    watcher = Watcher()
    for number in range(10):
        watcher.post(number)
    gate = Gate()
    monkeypatch.setattr(watcher, "gate", gate)
    collector = Collector(watcher)
    refuse = watcher._refuse_late

    def refuse_after_a_wait_began(operation: OpResult, error: Exception) -> None:
        if collector.thread.ident is None:
            collector.thread.start()
            assert gate.awaited.wait(LIMIT_S)
        refuse(operation, error)

    monkeypatch.setattr(watcher, "_refuse_late", refuse_after_a_wait_began)
    watcher.close()
    collector.join()
    assert contexts(collector.done) == list(range(10))
    assert {type(result.error) for result in collector.done} == {WatcherClosed}


def test_close_that_finds_the_loop_gone_already_raises_nothing(monkeypatch: Any) -> None:
    """The loop sees that it is closed, and closes all, before the closing thread gets to wake it."""
    watcher = Watcher()
    collector = Collector(watcher)
    inside, stopping, is_shut = threading.Event(), threading.Event(), threading.Event()
    shut = watcher._shut

    class Inbox(deque[OpResult]):
        def append(self, operation: OpResult) -> None:
            super().append(operation)
            stopping.set()
            assert is_shut.wait(LIMIT_S)

    def wait(timeout_s: float) -> int:
        inside.set()
        assert stopping.wait(LIMIT_S)
        return 0

    def shut_and_tell() -> None:
        shut()
        is_shut.set()

    monkeypatch.setattr(watcher, "inbox", Inbox())
    monkeypatch.setattr(watcher.poller, "wait", wait)
    monkeypatch.setattr(watcher, "_shut", shut_and_tell)
    collector.thread.start()
    assert inside.wait(LIMIT_S)
    watcher.close()
    collector.join()
    assert collector.done == []


def test_completions_in_hand_when_another_thread_closes_are_returned(monkeypatch: Any) -> None:
    watcher = Watcher()
    watcher.timer(0.0, context="in hand")
    due = watcher.timers.due

    def due_while_closing(now_s: float) -> list[Any]:
        ringing = due(now_s)
        closer = threading.Thread(target=watcher.close)
        closer.start()
        closer.join(LIMIT_S)
        return ringing

    monkeypatch.setattr(watcher.timers, "due", due_while_closing)
    assert contexts(watcher.wait_io(LIMIT_S)) == ["in hand"]
    with pytest.raises(WatcherClosed):
        watcher.wait_io(LIMIT_S)


def test_submission_handed_over_while_the_watcher_closes_raises_or_completes(monkeypatch: Any) -> None:
    """It passed the check before the close, and stands in the inbox after it was emptied: it must not get lost."""
    watcher = Watcher()
    closed = threading.Event()

    class Inbox(deque[OpResult]):
        def append(self, operation: OpResult) -> None:
            closer = threading.Thread(target=lambda: (watcher.close(), closed.set()))  # type: ignore[func-returns-value]
            closer.start()
            assert closed.wait(LIMIT_S)
            super().append(operation)

    monkeypatch.setattr(watcher, "inbox", Inbox())
    with pytest.raises(WatcherClosed):
        watcher.post("late")
    assert len(watcher.inbox) == 0
    with pytest.raises(WatcherClosed):
        watcher.wait_io(0)


def test_submissions_that_take_themselves_back_leave_the_inbox_as_the_loop_counted_it(monkeypatch: Any) -> None:
    """The loop has seen three of them, and is at the first, when the watcher closes and the others take theirs back."""
    watcher = Watcher()
    appended, may_go_on = threading.Semaphore(0), threading.Event()

    class Inbox(deque[OpResult]):
        def append(self, operation: OpResult) -> None:
            super().append(operation)
            if str(operation.context).startswith("late"):
                appended.release()
                assert may_go_on.wait(LIMIT_S)

    refused: list[int] = []

    def post(number: int) -> None:
        try:
            watcher.post(f"late {number}")
        except WatcherClosed:
            refused.append(number)

    monkeypatch.setattr(watcher, "inbox", Inbox())
    watcher.post("first")
    late = [threading.Thread(target=post, args=(number,)) for number in range(3)]
    for thread in late:
        thread.start()
        assert appended.acquire(timeout=LIMIT_S)
    start = watcher._start

    def start_while_closing(operation: OpResult) -> None:
        if operation.context == "first":
            watcher.close()
            may_go_on.set()
            for thread in late:
                thread.join(LIMIT_S)
        start(operation)

    monkeypatch.setattr(watcher, "_start", start_while_closing)
    collector = Collector(watcher)
    collector.run()
    assert collector.raised == []
    assert len(refused) + len(collector.done) == 4
    assert watcher.shut


def test_submission_that_arrives_while_a_close_answers_the_inbox_is_refused(monkeypatch: Any) -> None:
    watcher = Watcher()
    at_the_door, may_enter, entered = threading.Event(), threading.Event(), threading.Event()

    class Inbox(deque[OpResult]):
        def append(self, operation: OpResult) -> None:
            if operation.context == "late":
                at_the_door.set()
                assert may_enter.wait(LIMIT_S)
            super().append(operation)
            entered.set()

    raised: list[BaseException] = []

    def post() -> None:
        try:
            watcher.post("late")
        except BaseException as error:
            raised.append(error)

    monkeypatch.setattr(watcher, "inbox", Inbox())
    for number in range(3):
        watcher.post(number)
    late = threading.Thread(target=post)
    late.start()
    assert at_the_door.wait(LIMIT_S)
    refuse = watcher._refuse_late
    entered.clear()

    def refuse_while_another_enters(operation: OpResult, error: Exception) -> None:
        may_enter.set()
        assert entered.wait(LIMIT_S)
        refuse(operation, error)

    monkeypatch.setattr(watcher, "_refuse_late", refuse_while_another_enters)
    watcher.close()
    late.join(LIMIT_S)
    collector = Collector(watcher)
    collector.run()
    assert collector.raised == []
    answered = contexts(collector.done)
    assert answered[:3] == [0, 1, 2]
    assert (len(answered) == 4) != (len(raised) == 1), "it completes, or it is refused, and never both"


def test_connection_forgotten_while_its_alarm_rings_is_let_go(
    watcher: Watcher, unix_pair: NewPair, monkeypatch: Any
) -> None:
    near, far = unix_pair()
    conns = [watcher.delegate(near)]
    conns[0].read(deadline=soon())
    far.sendall(b"a")
    collect_one(watcher)  # the alarm stays, and is looked at when it is due
    find = watcher.poller.find

    def find_for_the_last_time(fd: int) -> Any:
        found = find(fd)
        dropper = threading.Thread(target=conns.clear)
        dropper.start()
        dropper.join(LIMIT_S)
        return found

    monkeypatch.setattr(watcher.poller, "find", find_for_the_last_time)
    assert watcher.wait_io(2 * MOMENT_S) == []
    assert watcher.get_gc() == (1, 1)


def test_message_posted_between_the_loops_last_look_and_its_sleep_wakes_it(watcher: Watcher, monkeypatch: Any) -> None:
    wait = watcher.poller.wait

    def post_and_wait(timeout_s: float) -> int:
        if not posted:
            posted.append(True)
            poster = threading.Thread(target=watcher.post, args=("just in time",))
            poster.start()
            poster.join(LIMIT_S)
        return wait(timeout_s)

    posted: list[bool] = []
    monkeypatch.setattr(watcher.poller, "wait", post_and_wait)
    assert contexts(watcher.wait_io(LIMIT_S)) == ["just in time"]


def test_loop_that_moves_to_another_thread_waits_for_a_submission_under_way(
    watcher: Watcher, unix_pair: NewPair, monkeypatch: Any
) -> None:
    near, far = unix_pair()
    conn = watcher.delegate(near)
    collector = Collector(watcher)
    start = watcher._start
    polled_meanwhile: list[bool] = []
    wait = watcher.poller.wait

    def slow_start(operation: OpResult) -> None:
        if collector.thread.ident is None:
            collector.thread.start()
            while watcher.loop_thread != collector.thread.ident:
                pass
            polled_meanwhile.append(False)
        start(operation)
        if polled_meanwhile:
            polled_meanwhile.append(True)

    def wait_and_tell(timeout_s: float) -> int:
        assert polled_meanwhile[-1], "the loop ran while another thread was changing its state"
        return wait(timeout_s)

    monkeypatch.setattr(watcher, "_start", slow_start)
    monkeypatch.setattr(watcher.poller, "wait", wait_and_tell)
    conn.write(b"hello", context="written")
    assert receive(far, 5) == b"hello"
    watcher.close()
    collector.join()
    assert contexts(collector.done) == ["written"]


def test_descriptor_taken_again_by_another_thread_while_events_are_looked_at_is_not_mixed_up(
    watcher: Watcher, unix_pair: NewPair, monkeypatch: Any
) -> None:
    """Bytes for the old owner are an edge already; the new one reads only its own."""
    near, far = unix_pair()
    old = [watcher.delegate(near)]
    fd = old[0].fileno()
    far.sendall(b"for the old one")
    spare, peer = unix_pair()
    new: list[Any] = []
    wait = watcher.poller.wait

    def reuse() -> None:
        old.clear()  # forgotten: its descriptor closes
        new.append(watcher.delegate(spare))

    def wait_and_reuse(timeout_s: float) -> int:
        count = wait(timeout_s)
        if not new:
            thread = threading.Thread(target=reuse)
            thread.start()
            thread.join(LIMIT_S)
        return count

    monkeypatch.setattr(watcher.poller, "wait", wait_and_reuse)
    assert watcher.wait_io(0) == []
    assert new[0].fileno() == fd
    new[0].read()
    assert watcher.wait_io(0) == []
    peer.sendall(b"for the new one")
    assert bytes(collect_one(watcher).buffer) == b"for the new one"


def test_close_in_another_thread_amid_a_delegation_does_not_wait_for_it_with_what_it_needs(
    unix_pair: NewPair, monkeypatch: Any
) -> None:
    """The loop's thread is at the door when the other one is inside."""
    watcher = Watcher()
    near, _ = unix_pair()
    raised: list[BaseException] = []
    closer = threading.Thread(target=watcher.close, daemon=True)
    set_blocking = os.set_blocking

    def close_and_set_blocking(fd: int, blocking: bool) -> None:
        closer.start()
        while not watcher.closed:
            pass
        closer.join(MOMENT_S)  # it goes as far as it can
        set_blocking(fd, blocking)

    def delegate() -> None:
        watcher.loop_thread = watcher.poller.thread()
        try:
            watcher.delegate(near)
        except BaseException as error:
            raised.append(error)

    monkeypatch.setattr(os, "set_blocking", close_and_set_blocking)
    delegator = threading.Thread(target=delegate, daemon=True)
    delegator.start()
    for thread in (delegator, closer):
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    assert [type(error) for error in raised] == [WatcherClosed]
    assert near.fileno() >= 0, "it was left as it was"
