"""A completion that a test makes, and that both engines have the same class."""

import importlib
import re
from pathlib import Path

import pytest

from gaiod import OpResult, OpType, core


def test_completion_that_is_made_by_hand_has_what_it_was_given() -> None:
    error = EOFError()
    result = OpResult(OpType.READ, "conn", buffer=b"abc", size=2, error=error, context=7, is_swap_buffer=True)
    assert (result.operation, result.conn, result.buffer, result.size) == (OpType.READ, "conn", b"abc", 2)
    assert (result.error, result.context, result.is_swap_buffer) == (error, 7, True)


def test_completion_that_is_made_by_hand_has_the_size_of_its_buffer() -> None:
    assert (OpResult(OpType.WRITE, buffer=b"abc").size, OpResult(OpType.TIMER).size) == (3, 0)


def test_completion_has_no_more_attributes() -> None:
    with pytest.raises(AttributeError):
        OpResult(OpType.READ).else_where = 1  # type: ignore[attr-defined]


def test_both_engines_describe_a_completion_in_the_same_words() -> None:
    folder = Path(core.__file__).parent
    found = [
        re.search(r'class OpResult:\n    """(.*?)"""', (folder / name).read_text(), re.DOTALL)
        for name in ("results.py", "results.pyx")
    ]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0][1] == found[1][1]


def test_completion_is_the_one_of_the_public_name() -> None:
    assert importlib.import_module("gaiod.core.results").OpResult is OpResult
