"""Completions reach whoever they concern, in their order."""

import errno
from collections.abc import Callable
from typing import Any

import pytest
from core.support.sockets import NewPair
from core.support.waiting import collect, soon

from gaiod import Conn, OpResult, OpType, Watcher
from gaiod.core.errors import UsageError, WatcherClosed
from gaiod.process.dispatch import Dispatcher, Target, dispatch


class Notes(Target):
    """Notes what it is handed."""

    def __init__(self, *, breaks: bool = False) -> None:
        super().__init__(self._read, self._written)
        self.breaks = breaks
        self.seen: list[tuple[str, Any]] = []

    def _read(self, conn: Conn, result: OpResult) -> None:
        self._note("read", result)

    def _written(self, conn: Conn, result: OpResult) -> None:
        self._note("written", result)

    def _note(self, name: str, result: OpResult) -> None:
        self.seen.append((name, result))
        if self.breaks:
            raise LookupError(name)

    def on_completion(self, result: OpResult) -> None:
        self.seen.append(("take", result))

    def failed(self, hook: str, conn: Conn | None) -> None:
        self.seen.append(("failed", hook))


MakeResult = Callable[..., OpResult]


@pytest.fixture
def make_result(watcher: Watcher, unix_pair: NewPair) -> MakeResult:
    """A maker of completions, each of a connection of its own."""

    def make(kind: OpType, target: Any, error: Exception | None = None) -> OpResult:
        conn = watcher.delegate(unix_pair()[0], context=target)
        return OpResult(kind, conn, error=error, context=target)

    return make


def test_success_goes_to_the_methods_of_the_target_and_everything_else_to_take(make_result: MakeResult) -> None:
    target = Notes()
    results = [
        make_result(OpType.READ, target),
        make_result(OpType.WRITE, target),
        make_result(OpType.READ, target, EOFError()),
        make_result(OpType.WRITE, target, OSError(errno.EPIPE, "broken")),
        make_result(OpType.ACCEPT, target),
        make_result(OpType.CONNECT, target, OSError(errno.ECONNREFUSED, "refused")),
        make_result(OpType.CLOSE, target),
    ]
    dispatch(results)
    assert target.seen == list(zip(["read", "written", "take", "take", "take", "take", "take"], results, strict=True))


def test_target_of_a_connection_is_its_context_of_now(make_result: MakeResult) -> None:
    """A context may change while an operation is pending: the new owner gets the completion."""
    old, new = Notes(), Notes()
    result = make_result(OpType.READ, old)
    result.conn.context = new
    dispatch([result])
    assert (old.seen, new.seen) == ([], [("read", result)])


@pytest.mark.parametrize(
    ("kind", "name", "hook"), [(OpType.READ, "read", "on_read"), (OpType.WRITE, "written", "on_write")]
)
def test_failed_is_told_the_hook_when_it_raises_and_the_rest_is_handed_over(
    make_result: MakeResult, kind: OpType, name: str, hook: str
) -> None:
    target, other = Notes(breaks=True), Notes()
    bad, good = make_result(kind, target), make_result(kind, other)
    dispatch([bad, good])
    assert target.seen == [(name, bad), ("failed", hook)]
    assert other.seen == [(name, good)]


@pytest.mark.parametrize("kind", [OpType.READ, OpType.WRITE])
def test_success_on_a_connection_that_has_closed_since_is_nobodys(make_result: MakeResult, kind: OpType) -> None:
    """A hook closed it, called for a completion before this one."""
    target = Notes()
    result = make_result(kind, target)
    result.conn.abort()
    failed = make_result(kind, target, EOFError())
    failed.conn.abort()
    dispatch([result, failed])
    assert target.seen == [("take", failed)]


def test_timers_and_posts_call_their_context() -> None:
    seen: list[OpType] = []
    results = [
        OpResult(kind, context=lambda result: seen.append(result.operation)) for kind in (OpType.TIMER, OpType.POST)
    ]
    dispatch(results)
    assert seen == [OpType.TIMER, OpType.POST]


@pytest.mark.parametrize("kind", [OpType.TIMER, OpType.POST])
def test_timers_and_posts_that_were_cancelled_call_nobody(kind: OpType) -> None:
    dispatch([OpResult(kind, context=pytest.fail, error=OSError(errno.ECANCELED, "cancelled"))])


def test_exception_of_the_daemons_own_is_let_through(make_result: MakeResult) -> None:
    """A target that does not say what to do about it has a bug, and hiding it helps nobody."""

    class Plain(Target):
        """As the channel's."""

    def broken(conn: Conn, result: OpResult) -> None:
        raise LookupError("own")

    with pytest.raises(LookupError, match="own"):
        dispatch([make_result(OpType.READ, Plain(broken, broken))])


def test_target_must_say_how_it_takes_the_rest(make_result: MakeResult) -> None:
    with pytest.raises(NotImplementedError):
        dispatch([make_result(OpType.CLOSE, Target(None, None))])


def test_order_of_completions_is_kept_on_a_real_watcher(watcher: Watcher, unix_pair: NewPair) -> None:
    target = Notes()
    near, far = unix_pair()
    conn = watcher.delegate(near, context=target)
    order: list[str] = []
    conn.write(b"hello")
    watcher.timer(soon(), context=lambda result: order.append("timer"))
    watcher.post(lambda result: order.append("post"))
    dispatch(collect(watcher, 2))
    assert order == ["post"]
    assert [name for name, _ in target.seen] == ["written"]
    dispatch(collect(watcher, 1))
    assert order == ["post", "timer"]
    assert far.recv(5) == b"hello"


def test_dispatcher_hands_over_until_it_has_ended(watcher: Watcher) -> None:
    dispatcher = Dispatcher(watcher)
    seen: list[int] = []

    def count(result: OpResult) -> None:
        seen.append(len(seen))
        if len(seen) == 3:
            dispatcher.ended = True
        watcher.post(count)

    watcher.post(count)
    dispatcher.run()
    assert seen == [0, 1, 2]


def test_dispatcher_hands_over_all_of_a_pass_in_which_it_ends(watcher: Watcher) -> None:
    dispatcher = Dispatcher(watcher)
    seen: list[str] = []

    def end(result: OpResult) -> None:
        dispatcher.ended = True

    watcher.post(end)
    watcher.post(lambda result: seen.append("after"))
    dispatcher.run()
    assert seen == ["after"]


def test_dispatcher_ends_with_its_watcher(watcher: Watcher) -> None:
    watcher.post(lambda result: watcher.close())
    with pytest.raises(WatcherClosed):
        Dispatcher(watcher).run()


def test_target_that_is_no_listener_begins_no_tls(watcher: Watcher, unix_pair: NewPair) -> None:
    conn = watcher.delegate(unix_pair()[0], context=Notes())
    with pytest.raises(UsageError, match="is of no listener"):
        conn.start_tls(server=True, unread=b"")
