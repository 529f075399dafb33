"""Hooks: a name that is near to one, and is none, is an error where the class is made."""

import functools
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import MagicMock

import pytest

from gaiod import Conn, Handler, OpResult, Outlet, Source
from gaiod.handler.handler import CALLED
from gaiod.handler.hooks import check_instance
from gaiod.stats.cells import HOOKS


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("on_raed", "on_read"), ("on_clos", "on_close"), ("on_opened", "on_open"), ("on_connected", "on_connect"),
        ("on_strat", "on_start"), ("on_times", "on_timer"), ("on_posted", "on_post"),
        ("on_recieve", "on_read"), ("on_data", "on_read"), ("on_disconnect", "on_close"), ("on_accepted", "on_open"),
    ],
)  # fmt: skip
def test_handler_is_refused_and_the_nearest_hook_named_when_a_hook_is_misspelt(name: str, nearest: str) -> None:
    with pytest.raises(TypeError, match=rf"Mine\.{name} is not a hook; did you mean {nearest}\?"):
        _define(name)


def test_handler_is_refused_and_every_hook_named_when_a_hook_is_near_to_none() -> None:
    with pytest.raises(TypeError, match=", ".join(HOOKS)):
        _define("on_xyzzy")


def test_handler_is_accepted_when_it_has_every_hook_and_helpers_of_its_own() -> None:
    members = dict.fromkeys((*HOOKS, "once", "_on_line"), _nothing)
    assert issubclass(type("Mine", (Handler,), members), Handler)


def test_every_hook_is_one_that_a_handler_inherits() -> None:
    assert all(callable(getattr(Handler, name)) for name in HOOKS)
    assert {name for name in vars(Handler) if name.startswith("on_")} == set(HOOKS)


def _nothing(*arguments: object) -> None:
    """A hook that does nothing."""


def _define(name: str) -> Any:
    return type("Mine", (Handler,), {name: _nothing})


# -- what can never work -----------------------------------------------------------------------------------


async def _awaited(self: Any, conn: Conn) -> None:
    """A coroutine function."""


async def _yields_async(self: Any, conn: Conn) -> Any:
    yield


def _yields(self: Any, conn: Conn) -> Iterator[None]:
    yield


OPEN = r"def on_open\(self, conn: Conn\) -> None"


@pytest.mark.parametrize(
    ("hook", "why"),
    [
        (_awaited, "is async, and gaiod would not await it"),
        (_yields_async, "is async, and gaiod would not await it"),
        (_yields, "has a yield: calling it does nothing"),
        (lambda self: None, r"takes \(self\): too many positional arguments"),
        (lambda self, conn, result: None, r"takes \(self, conn, result\): missing a required argument: 'result'"),
        (lambda self, *, conn: None, r"takes \(self, \*, conn\): too many positional arguments"),
        (staticmethod(lambda self, conn: None), r"takes \(self, conn\): missing a required argument: 'conn'"),
        (None, "is None, which cannot be called"),
    ],
    ids=["async", "async generator", "generator", "too few", "too many", "keyword", "static", "nothing"],
)
def test_hook_that_can_never_work_is_refused_with_its_place_and_what_to_write(hook: Any, why: str) -> None:
    where = rf"Mine\.on_open( at {__file__}:[0-9]+)? "
    with pytest.raises(TypeError, match=f"{where}{why}; write {OPEN}"):
        type("Mine", (Handler,), {"on_open": hook})


def test_line_is_that_of_the_hook() -> None:
    line = _awaited.__code__.co_firstlineno
    with pytest.raises(TypeError, match=f"{__file__}:{line} is async"):
        type("Mine", (Handler,), {"on_open": _awaited})


class _Called:
    """Something that can be called."""

    def __call__(self, conn: Conn) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    "hook",
    [
        lambda self, conn: None,
        lambda *arguments: None,
        lambda self, conn, more=None: None,
        staticmethod(lambda conn: None),
        classmethod(lambda cls, conn: None),
        functools.partial(lambda first, conn: None, 1),
        functools.wraps(_awaited)(lambda self, conn: None),
        property(lambda self: self.made),
        _Called(),
        MagicMock(),
        print,
    ],
    ids=["plain", "any", "default", "static", "class", "partial", "wraps", "property", "object", "mock", "compiled"],
)
def test_hook_that_can_be_called_is_accepted_however_it_was_made(hook: Any) -> None:
    """A decorator that drives a coroutine, say, has the name of what it wraps, and takes what it takes."""
    assert issubclass(type("Mine", (Handler,), {"on_open": hook}), Handler)


@pytest.mark.parametrize("name", CALLED)
def test_every_method_that_others_call_is_looked_at(name: str) -> None:
    with pytest.raises(TypeError, match=rf"Mine\.{name} at .*; write (@classmethod )?def {name}\("):
        type("Mine", (Handler,), {name: lambda: None})


def test_class_method_is_refused_when_it_is_none() -> None:
    with pytest.raises(
        TypeError, match=r"write @classmethod def servers_of\(cls, options: Any\) -> tuple\[str, \.\.\.\]"
    ):
        type("Mine", (Handler,), {"servers_of": lambda self, options: ()})


def test_method_that_returns_something_may_be_a_generator() -> None:
    def notes_on(self: Any, conn: Conn) -> Iterator[str]:
        yield "A sentence."

    assert issubclass(type("Mine", (Handler,), {"notes_on": notes_on}), Handler)


def test_hook_of_a_mixin_is_refused_where_it_becomes_a_handlers() -> None:
    class Mixin:
        def on_open(self) -> None:
            """Take too little."""

    with pytest.raises(TypeError, match=r"Mixin\.on_open at "):
        type("Mine", (Mixin, Handler), {})


def test_hook_that_an_instance_made_for_itself_is_looked_at() -> None:
    class Mine(Handler):
        def __init__(self, hook: Callable[..., Any]) -> None:
            super().__init__()
            vars(self)["on_read"] = hook

    check_instance(Mine(lambda conn, result: None), Handler, CALLED)
    with pytest.raises(
        TypeError, match=r"Mine\(\)\.on_read at .* takes \(conn\): .*; write def on_read\(self, conn: Conn"
    ):
        check_instance(Mine(lambda conn: None), Handler, CALLED)


def test_source_is_refused_when_its_start_is_async() -> None:
    async def start(self: Any, outlet: Outlet) -> None:
        """Be awaited by nobody."""

    with pytest.raises(
        TypeError, match=r"Mine\.start at .* is async.*; write def start\(self, outlet: Outlet\) -> None"
    ):
        type("Mine", (Source,), {"start": start})


def test_methods_that_others_call_are_all_but_those_that_a_handler_calls_itself() -> None:
    own = {
        "state_version",
        "state_accepts",
        "listener",
        "connect",
        "offers_tls",
        "pause_accepting",
        "group",
        "timer",
        "post",
        "delay_ready",
        "ready",
        "share",
        "shared",
        "is_leader",
        "server",
        "count",
        "Options",
        "tick_interval_s",
    }
    assert {name for name in vars(Handler) if not name.startswith("_")} == {*CALLED, *own}


def test_result_of_a_read_is_named_as_authors_write_it() -> None:
    with pytest.raises(TypeError, match=rf"result: {OpResult.__name__}\) -> None$"):
        type("Mine", (Handler,), {"on_read": lambda self: None})


@pytest.mark.parametrize("interval_s", [0, -1.0, float("nan"), float("inf")])
def test_ticks_that_never_come_or_never_end_are_refused(interval_s: float) -> None:
    with pytest.raises(TypeError, match=r"Mine\.tick_interval_s is .*; write seconds, more than 0"):
        type("Mine", (Handler,), {"tick_interval_s": interval_s})


def test_ticks_may_depend_on_the_options() -> None:
    assert issubclass(type("Mine", (Handler,), {"tick_interval_s": property(lambda self: self.options.every)}), Handler)
