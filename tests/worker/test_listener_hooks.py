"""What a handler has done for it when no connection calls: its start, its timers, its posts, its own connections."""

import socket
import threading
import time
from typing import Any

import pytest
from core.support.sockets import listen
from core.support.waiting import LIMIT_S, MOMENT_S

from gaiod import Conn, Handler, OpResult, TooManyOperations, Watcher
from gaiod.handler.failures import StartError, words_of
from gaiod.process.dispatch import dispatch
from gaiod.settings import ListenerSettings
from gaiod.stats.cells import Layout
from gaiod.worker.listener import Listener
from worker.conftest import Serve
from worker.support.serving import Recorder

WAITING_MAX = 65_536
"""Submissions of other threads that wait: a compiled module does not show its constant."""


class Notes(Recorder):
    """An echo that notes what comes to it without a connection, and by which thread."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[tuple[str, Any]] = []
        self.threads: set[int] = set()

    def _note(self, hook: str, data: Any) -> None:
        self.notes.append((hook, data))
        self.threads.add(threading.get_ident())

    def on_start(self) -> None:
        self._note("start", None)

    def on_timer(self, data: Any) -> None:
        self._note("timer", data)

    def on_post(self, data: Any) -> None:
        self._note("post", data)

    def on_message(self, topic: str, data: bytes) -> None:
        self._note("message", data)


class Breaks(Handler):
    """Raises in a hook that has no connection, and sees to it that it is called."""

    def __init__(self, hook: str) -> None:
        super().__init__()
        self._hook = hook

    def _break(self, hook: str) -> None:
        if hook == self._hook:
            raise LookupError(f"broken {hook}")

    def on_start(self) -> None:
        self.timer(0.0, "data")
        self.post("data")

    def on_timer(self, data: Any) -> None:
        self._break("on_timer")

    def on_post(self, data: Any) -> None:
        self._break("on_post")

    def on_open(self, conn: Conn) -> None:
        conn.write(b"served")


# -- start ---------------------------------------------------------------------------------------------


def test_start_comes_first_and_once(serve: Serve) -> None:
    handler = Notes()
    serving = serve(handler)
    assert handler.notes == [("start", None)]
    assert serving.exchange(serving.connect(), b"served") == b"served"
    assert handler.notes == [("start", None)]


def test_start_may_connect_and_have_itself_called_later(serve: Serve) -> None:
    class Starts(Notes):
        def on_start(self) -> None:
            self.connect(elsewhere.getsockname(), data="upstream")
            self.timer(0.0, "timer")

        def on_connect(self, conn: Conn, result: OpResult) -> None:
            self._note("connect", (conn.data, result.error))

    with listen() as elsewhere:
        handler = Starts()
        serving = serve(handler)
        serving.step_until(lambda: len(handler.notes) == 2, "both")
        assert sorted(handler.notes) == [("connect", ("upstream", None)), ("timer", "timer")]


def _listener(handler: Handler, watcher: Watcher) -> Listener:
    """Return one that has neither started nor serves."""
    layout = Layout((0,))
    cells = memoryview(bytearray(8 * layout.size)).cast("q")
    return Listener(ListenerSettings("front", "", "./mine.py"), handler, watcher, cells, layout, number=0)


def test_start_comes_before_anybody_is_accepted_and_what_it_plans_happens(watcher: Watcher) -> None:
    class Plans(Notes):
        def on_start(self) -> None:
            super().on_start()
            self.timer(0.0, "planned")

    handler = Plans()
    listener = _listener(handler, watcher)
    listener.start()
    listener.deliver(1, "topic", b"message")
    until_s = time.monotonic() + LIMIT_S
    while ("timer", "planned") not in handler.notes:
        assert time.monotonic() < until_s
        dispatch(watcher.wait_io(MOMENT_S))
    assert handler.notes == [("start", None), ("message", b"message"), ("timer", "planned")]


@pytest.mark.parametrize("error", [ConnectionError("database is down"), SystemExit(0), KeyboardInterrupt()], ids=repr)
def test_start_that_raises_says_which_listener_handler_line_and_why(
    watcher: Watcher, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    class Needs(Handler):
        def on_start(self) -> None:
            self._connect()

        def _connect(self) -> None:
            raise error

    with pytest.raises(StartError) as refused:
        _listener(Needs(), watcher).start()
    text = str(refused.value)
    assert text.startswith(f"listener front, handler ./mine.py: on_start at {__file__}:")
    assert f" raised {words_of(error)}; see to what it needs" in text
    assert "listener front: on_start raised; it is not served" in caplog.text
    assert "in _connect" in caplog.text, "the whole traceback"


def test_socket_is_closed_when_the_listener_was_drained_before_it_served(watcher: Watcher) -> None:
    """An operator may drain a listener while its workers start."""
    listener = _listener(Notes(), watcher)
    listener.start()
    listener.stop_accepting()
    with listen() as sock:
        listener.open([sock])
        assert sock.fileno() == -1


@pytest.mark.parametrize("hook", ["on_timer", "on_post"])
def test_hook_without_a_connection_that_raises_is_counted_and_logged_and_costs_nobody(
    serve: Serve, caplog: pytest.LogCaptureFixture, hook: str
) -> None:
    serving = serve(Breaks(hook))
    sock = serving.connect()
    serving.step_until(lambda: serving.count(f"handler_error_{hook}"), "the hook being called")
    assert serving.receive(sock, 6) == b"served"
    assert serving.count(f"handler_error_{hook}") == 1
    assert f"listener front: {hook} raised; nothing was closed" in caplog.text
    assert f"broken {hook}" in caplog.text


# -- timers --------------------------------------------------------------------------------------------


def test_timers_come_once_each_in_their_order_and_not_early(serve: Serve) -> None:
    handler = Notes()
    serving = serve(handler)
    began_s = time.monotonic()
    handler.timer(3 * MOMENT_S, "last")
    handler.timer(MOMENT_S, "first")
    handler.timer(2 * MOMENT_S, "second")
    serving.step_until(lambda: ("timer", "last") in handler.notes, "the last timer")
    assert time.monotonic() - began_s >= 3 * MOMENT_S
    serving.step(MOMENT_S)
    assert handler.notes[1:] == [("timer", "first"), ("timer", "second"), ("timer", "last")]


@pytest.mark.parametrize("delay_s", [float("nan"), float("inf")])
def test_timer_is_refused_when_its_time_never_comes(serve: Serve, delay_s: float) -> None:
    handler = Notes()
    serve(handler)
    with pytest.raises(ValueError, match="finite"):
        handler.timer(delay_s, "never")


def test_timer_comes_while_the_last_connection_lasts_and_not_after(serve: Serve) -> None:
    """As long as a listener drains, what its handler has planned for the clients left goes on."""
    handler = Notes()
    serving = serve(handler)
    sock = serving.connect()
    serving.listener.stop_accepting()
    handler.timer(0.0, "with a client")
    serving.step_until(lambda: ("timer", "with a client") in handler.notes, "the timer")
    sock.close()
    serving.step_until(lambda: serving.listener.active == 0, "the end of the connection")
    handler.timer(0.0, "without")
    for _ in range(3):
        serving.step(MOMENT_S)
    assert ("timer", "without") not in handler.notes


# -- posts ---------------------------------------------------------------------------------------------


def test_posts_of_other_threads_come_in_the_workers_thread_and_in_their_order(serve: Serve) -> None:
    handler = Notes()
    serving = serve(handler)

    def post(number: int) -> None:
        for index in range(100):
            handler.post((number, index))

    threads = [threading.Thread(target=post, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    serving.step_until(lambda: len(handler.notes) == 301, "every post")
    for thread in threads:
        thread.join()
    posted = [data for hook, data in handler.notes if hook == "post"]
    for number in range(3):
        assert [data for data in posted if data[0] == number] == [(number, index) for index in range(100)]
    assert handler.threads == {threading.get_ident()}


def test_post_wakes_a_worker_that_waits(serve: Serve) -> None:
    handler = Notes()
    serving = serve(handler)
    thread = threading.Timer(MOMENT_S, handler.post, ("wake up",))
    thread.start()
    began_s = time.monotonic()
    while ("post", "wake up") not in handler.notes:
        serving.step(LIMIT_S)
    thread.join()
    assert time.monotonic() - began_s < LIMIT_S / 2


def test_post_does_nothing_when_the_worker_has_ended(serve: Serve) -> None:
    handler = Notes()
    serving = serve(handler)
    serving.close()
    handler.post("too late")
    assert handler.notes == [("start", None)]


def test_post_says_so_when_too_many_wait(serve: Serve) -> None:
    """A thread that is faster than the worker must not fill its memory."""
    handler = Notes()
    serving = serve(handler)
    for index in range(WAITING_MAX):
        handler.post(index)
    with pytest.raises(TooManyOperations):
        handler.post("one more")
    serving.step_until(lambda: len(handler.notes) == WAITING_MAX + 1, "every post")
    handler.post("again")
    serving.step_until(lambda: handler.notes[-1] == ("post", "again"), "room")


# -- connections of its own ------------------------------------------------------------------------------


def test_connect_sets_the_options_it_is_given(serve: Serve) -> None:
    class Connects(Handler):
        def on_start(self) -> None:
            options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
            self.conn = self.connect(elsewhere.getsockname(), options=options)

    with listen() as elsewhere:
        handler = Connects()
        serve(handler)
        sock = socket.socket(fileno=handler.conn.fileno())
        try:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        finally:
            sock.detach()


# -- counting --------------------------------------------------------------------------------------------


def test_handler_counts_in_the_cells_of_its_listener_and_of_its_servers(serve: Serve) -> None:
    handler = Handler()
    serving = serve(handler, servers=("a", "b"))
    handler.count("upstream_retries")
    handler.count("upstream_queued", 5)
    handler.count("upstream_queued", -2)
    handler.server("b").failed("timeout")
    assert (serving.count("upstream_retries"), serving.count("upstream_queued")) == (1, 3)
    assert (serving.count_of_server("failed_timeout", 0), serving.count_of_server("failed_timeout", 1)) == (0, 1)
