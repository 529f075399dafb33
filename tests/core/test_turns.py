"""Turns: who stands in line, and that nobody is held who does not. `turns.py`, interpreted: the compiled one is C."""

import weakref
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

from gaiod import core


@pytest.fixture
def turns() -> Any:
    path = str(Path(core.__file__).with_name("turns.py"))
    spec = spec_from_loader("turns_as_written", SourceFileLoader("turns_as_written", path))
    assert spec is not None
    module = module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module.Turns()


class Item:
    """Something that can be seen to be let go."""


def test_turns_come_in_the_order_in_which_they_were_added(turns: Any) -> None:
    for number in range(5):
        turns.add(number)
    assert turns.items[: turns.count] == [0, 1, 2, 3, 4]


def test_turns_that_are_cleared_hold_nobody(turns: Any) -> None:
    item = Item()
    held = weakref.ref(item)
    turns.add(item)
    del item
    assert held() is not None
    turns.clear()
    assert (held(), turns.count) == (None, 0)


def test_turns_keep_their_memory(turns: Any) -> None:
    for _ in range(3):
        turns.add(1)
        turns.add(2)
        turns.clear()
    assert turns.items == [None, None]


def test_turns_that_were_cleared_are_as_new(turns: Any) -> None:
    turns.add("a")
    turns.add("b")
    turns.clear()
    turns.add("c")
    assert turns.items[: turns.count] == ["c"]
