"""Hooks: a name that is near to one, and is none, is an error where the class is made."""

from typing import Any

import pytest

from gaiod import Handler
from gaiod.runtime.hooks import HOOKS


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("on_raed", "on_read"), ("on_clos", "on_close"), ("on_opened", "on_open"), ("on_connected", "on_connect"),
        ("on_strat", "on_start"), ("on_times", "on_timer"), ("on_posted", "on_post"),
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
