"""Threads: anyone may submit, one may wait, and nothing is lost or done twice in between."""

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from core.support.sockets import NewPair, fill, listen, receive
from core.support.waiting import (
    LIMIT_S,
    MOMENT_S,
    assert_quiet,
    collect_one,
    collect_rest,
    collect_until,
    contexts,
    later,
    soon,
)
from gaiod.core.errors import ConnClosed, DeadlineExceeded, UsageError, WatcherClosed
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher

THREADS = 8


class Waiter:
    """A thread in `wait_io()`, until it is told to stop; what completed, and what was raised."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.done: list[OpResult] = []
        self.raised: list[BaseException] = []
        self.entered = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        watcher.post(self.entered)
        assert self.entered.wait(LIMIT_S)

    def run(self) -> None:
        try:
            while True:
                for result in self.watcher.wait_io():
                    if result.context is self.entered:
                        self.entered.set()
                    else:
                        self.done.append(result)
        except WatcherClosed:
            pass
        except BaseException as error:
            self.raised.append(error)

    def join(self) -> None:
        self.thread.join(LIMIT_S)
        assert not self.thread.is_alive(), "wait_io() did not return"
        assert self.raised == []


@pytest.fixture
def waiter(watcher: Watcher) -> Iterator[Waiter]:
    """A thread that runs the watcher."""
    waiter = Waiter(watcher)
    yield waiter
    watcher.close()
    waiter.join()


def in_threads(n: int, work: Callable[[int], object]) -> None:
    """Run `work(number)` in `n` threads at once, and fail with what any of them raised."""
    raised: list[BaseException] = []
    barrier = threading.Barrier(n)

    def run(number: int) -> None:
        try:
            barrier.wait(LIMIT_S)
            work(number)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10 * LIMIT_S)
    assert raised == []


def test_posts_from_many_threads_all_arrive_each_threads_in_order(watcher: Watcher) -> None:
    waiter = Waiter(watcher)

    def post(thread: int) -> None:
        for number in range(1_000):
            watcher.post((thread, number))

    in_threads(THREADS, post)
    watcher.close()
    waiter.join()
    posted: list[Any] = contexts(waiter.done)
    assert Counter(posted) == Counter((thread, number) for thread in range(THREADS) for number in range(1_000))
    for thread in range(THREADS):
        assert [number for owner, number in posted if owner == thread] == list(range(1_000))


def test_post_wakes_a_loop_that_sleeps(watcher: Watcher) -> None:
    poster = threading.Timer(MOMENT_S, watcher.post, ("wake up",))
    poster.start()
    assert collect_one(watcher).context == "wake up"
    poster.join()


@pytest.mark.parametrize("kind", ["write", "read", "timer", "abort", "cancel", "connect"])
def test_submission_from_another_thread_wakes_a_loop_that_sleeps(
    watcher: Watcher, stream_pair: NewPair, kind: str
) -> None:
    near, far = stream_pair()
    far.sendall(b"a")
    conn = watcher.delegate(near)
    if kind in ("abort", "cancel"):
        conn.read(bytearray(10))
        collect_one(watcher)
        conn.read(bytearray(10))
    with listen() as listener:
        submit: dict[str, Callable[[], object]] = {
            "write": lambda: conn.write(b"hello"),
            "read": conn.read,
            "timer": lambda: watcher.timer(0.0),
            "abort": conn.abort,
            "cancel": conn.cancel,
            "connect": lambda: watcher.connect(listener.getsockname()),
        }
        thread = threading.Timer(MOMENT_S, submit[kind])
        thread.start()
        collect_one(watcher)
        thread.join()


def test_deadline_from_another_thread_is_seen_by_a_loop_that_sleeps(watcher: Watcher, unix_pair: NewPair) -> None:
    conn = watcher.delegate(unix_pair()[0])
    thread = threading.Timer(MOMENT_S, lambda: conn.read(deadline=soon()))
    thread.start()
    assert isinstance(collect_one(watcher).error, DeadlineExceeded)
    thread.join()


def test_operations_from_many_threads_complete_once_each(watcher: Watcher, waiter: Waiter, unix_pair: NewPair) -> None:
    """Reads, writes, timers, cancels, frees and drops, on connections of every thread's own."""
    pairs = [[unix_pair() for _ in range(20)] for _ in range(THREADS)]
    submitted: list[list[object]] = [[] for _ in range(THREADS)]

    def work(thread: int) -> None:
        mine = submitted[thread]

        def mark(kind: str) -> object:
            mine.append((thread, len(mine), kind))
            return mine[-1]

        for number, (near, far) in enumerate(pairs[thread]):
            conn = watcher.delegate(near)
            far.sendall(b"hello")
            conn.read(context=mark("read"))
            conn.read(context=mark("read"), deadline=soon())
            conn.write(b"hello", context=mark("write"))
            conn.write(bytearray(300_000), context=mark("write"), deadline=soon())
            timer = watcher.timer(later() if number % 2 else soon(), context=mark("timer"))
            watcher.cancel(timer)
            if number % 3 == 0:
                conn.cancel()
            elif number % 3 == 1:
                conn.abort()

    in_threads(THREADS, work)
    expected = Counter(mark for marks in submitted for mark in marks)
    watcher.close()
    waiter.join()
    assert Counter(contexts(waiter.done)) == expected


def test_messages_of_one_thread_to_a_connection_keep_their_order(
    watcher: Watcher, waiter: Waiter, stream_pair: NewPair
) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    messages = [bytes([number % 256]) * (number % 50 + 1) for number in range(3_000)]
    in_threads(1, lambda _: [conn.write(message) for message in messages])
    expected = b"".join(messages)
    assert receive(far, len(expected)) == expected


def test_swap_view_can_be_written_by_another_thread(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    for number in range(20):
        message = bytes([number]) * 100
        far.sendall(message)
        conn.read()
        view = collect_one(watcher).buffer
        in_threads(1, lambda _, view=view: conn.write(view))  # type: ignore[misc]
        assert bytes(collect_one(watcher).buffer) == message
        assert receive(far, 100) == message


def test_wait_io_in_two_threads_raises_in_the_second(watcher: Watcher, waiter: Waiter) -> None:
    for timeout in (0, None):
        with pytest.raises(UsageError, match="one thread at a time"):
            watcher.wait_io(timeout)
    watcher.post("still served")
    assert waiter.thread.is_alive()


def test_loop_may_move_to_another_thread_between_passes(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    for number in range(10):
        conn.read(bytearray(1), context=number)
        far.sendall(b"a")
        done: list[OpResult] = []
        in_threads(1, lambda _, done=done: done.append(collect_one(watcher)))  # type: ignore[misc]
        assert contexts(done) == [number]


def test_close_from_another_thread_ends_a_wait_with_every_completion(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    fill(near, far)
    conn = watcher.delegate(near)
    conn.read(context="read")
    conn.write(b"a", context="write")
    closer = threading.Timer(MOMENT_S, watcher.close)
    closer.start()
    done = watcher.wait_io()
    closer.join()
    assert sorted(str(context) for context in contexts(done)) == ["read", "write"]
    assert {type(result.error) for result in done} == {WatcherClosed}
    with pytest.raises(WatcherClosed):
        watcher.wait_io()
    assert conn.closed


def test_close_from_another_thread_with_nothing_pending_ends_a_wait(watcher: Watcher) -> None:
    closer = threading.Timer(MOMENT_S, watcher.close)
    closer.start()
    with pytest.raises(WatcherClosed):
        watcher.wait_io()
    closer.join()


def test_close_amid_submissions_answers_every_accepted_operation() -> None:
    for _ in range(20):
        watcher = Watcher()
        waiter = Waiter(watcher)
        accepted: list[list[int]] = [[], [], []]

        def submit(thread: int, watcher: Watcher = watcher, accepted: list[list[int]] = accepted) -> None:
            if thread == len(accepted):
                watcher.close()
                return
            for number in range(2_000):
                try:
                    watcher.post((thread, number))
                except WatcherClosed:
                    return
                accepted[thread].append(number)

        in_threads(4, submit)
        waiter.join()
        expected = ((thread, number) for thread, numbers in enumerate(accepted) for number in numbers)
        assert Counter(contexts(waiter.done)) == Counter(expected)


def test_close_races_with_a_wait_that_begins(unix_pair: NewPair) -> None:
    for _ in range(100):
        watcher = Watcher()
        conn = watcher.delegate(unix_pair()[0]).read()
        done: list[OpResult] = []

        def race(thread: int, watcher: Watcher = watcher, done: list[OpResult] = done) -> None:
            if thread:
                watcher.close()
                return
            try:
                while True:
                    done.extend(watcher.wait_io())
            except WatcherClosed:
                pass

        watcher.post("waiting")
        in_threads(2, race)
        assert sorted(str(result.operation) for result in done) == sorted(map(str, (OpType.READ, OpType.POST)))
        assert conn.closed


def test_close_waits_for_nobody_when_no_one_waits(watcher: Watcher, unix_pair: NewPair) -> None:
    conn = watcher.delegate(unix_pair()[0]).read()
    in_threads(1, lambda _: watcher.close())
    assert conn.closed
    assert [type(result.error) for result in collect_rest(watcher)] == [WatcherClosed]


def test_operation_on_a_connection_freed_meanwhile_completes_with_conn_closed(
    watcher: Watcher, unix_pair: NewPair
) -> None:
    """Accepted from another thread before the loop saw the free: it has its one completion."""
    conn = watcher.delegate(unix_pair()[0])

    def abort_and_read(_: int) -> None:
        conn.abort()
        conn.read(context="late")

    in_threads(1, abort_and_read)
    assert_late = collect_until(watcher, lambda done: len(done) > 0)
    assert [(result.context, type(result.error)) for result in assert_late] == [("late", ConnClosed)]
    assert_quiet(watcher, 0)


# -- signals ----------------------------------------------------------------------------------------


@pytest.fixture
def alarm_calls() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Gives what has a function called by a signal handler, a moment later."""

    def call_soon(function: Callable[[], object]) -> None:
        signal.signal(signal.SIGALRM, lambda *_: function() and None)
        signal.setitimer(signal.ITIMER_REAL, MOMENT_S)

    before = signal.getsignal(signal.SIGALRM)
    yield call_soon
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


AlarmCalls = Callable[[Callable[[], object]], None]


def test_close_in_a_signal_handler_ends_the_wait_it_interrupted(watcher: Watcher, alarm_calls: AlarmCalls) -> None:
    alarm_calls(watcher.close)
    with pytest.raises(WatcherClosed):
        watcher.wait_io(LIMIT_S)


def test_post_in_a_signal_handler_completes_in_the_wait_it_interrupted(
    watcher: Watcher, alarm_calls: AlarmCalls
) -> None:
    alarm_calls(lambda: watcher.post("from the handler"))
    assert contexts(watcher.wait_io(LIMIT_S)) == ["from the handler"]


def test_write_in_a_signal_handler_completes_in_the_wait_it_interrupted(
    watcher: Watcher, unix_pair: NewPair, alarm_calls: AlarmCalls
) -> None:
    near, far = unix_pair()
    conn = watcher.delegate(near)
    alarm_calls(lambda: conn.write(b"hello", context="written"))
    assert contexts(watcher.wait_io(LIMIT_S)) == ["written"]
    assert receive(far, 5) == b"hello"


def test_signal_handler_that_raises_ends_the_wait_and_the_watcher_stays_usable(
    watcher: Watcher, unix_pair: NewPair, alarm_calls: AlarmCalls
) -> None:
    near, far = unix_pair()
    conn = watcher.delegate(near).read()

    def interrupt() -> None:
        raise KeyboardInterrupt

    alarm_calls(interrupt)
    with pytest.raises(KeyboardInterrupt):
        watcher.wait_io(LIMIT_S)
    far.sendall(b"hello")
    assert bytes(collect_one(watcher).buffer) == b"hello"
    assert not conn.closed


def test_signal_handler_that_does_nothing_does_not_end_the_wait(watcher: Watcher, alarm_calls: AlarmCalls) -> None:
    alarm_calls(lambda: None)
    watcher.timer(soon() + MOMENT_S, context="timer")
    assert contexts(watcher.wait_io(LIMIT_S)) == ["timer"]
