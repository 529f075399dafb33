"""The errors: a tree by who has to act, the same in the code as in its docstring."""

import re

import pytest

from gaiod.core import errors

TREE = """
GaiodError Exception
UsageError GaiodError
WatcherClosed UsageError
ConnClosed UsageError
EmptyBuffer UsageError ValueError
UnsupportedConn UsageError TypeError
NoSuchCore UsageError ValueError
TooManyOperations UsageError
NotQuiet GaiodError
DeadlineExceeded GaiodError TimeoutError
RelaySinkError GaiodError OSError
TlsError GaiodError OSError
TlsTruncated GaiodError ConnectionResetError
"""


def defined() -> dict[str, type[Exception]]:
    return {name: value for name, value in vars(errors).items() if isinstance(value, type)}


@pytest.mark.parametrize("line", TREE.split("\n")[1:-1])
def test_error_has_its_bases(line: str) -> None:
    name, *bases = line.split()
    assert [base.__name__ for base in defined()[name].__bases__] == bases


def test_tree_has_every_error() -> None:
    assert sorted(line.split()[0] for line in TREE.strip().split("\n")) == sorted(defined())


def test_docstring_draws_every_error_under_its_base() -> None:
    """Where two bases are, the tree shows the first."""
    above: dict[int, str] = {}
    drawn = {}
    for indent, name in re.findall(r"^( +)([A-Z]\w+)\b", str(errors.__doc__), re.MULTILINE):
        above[len(indent)] = name
        if len(indent) > 4:
            drawn[name] = above[len(indent) - 2]
    assert drawn == {name: value.__bases__[0].__name__ for name, value in defined().items()}


def test_deadline_is_caught_as_a_timeout() -> None:
    with pytest.raises(TimeoutError):
        raise errors.DeadlineExceeded("late")
    with pytest.raises(OSError):  # TimeoutError is one
        raise errors.DeadlineExceeded("late")


def test_misuse_is_not_caught_as_what_the_network_does() -> None:
    assert not issubclass(errors.UsageError, (OSError, EOFError))


@pytest.mark.parametrize("error", defined().values(), ids=defined())
def test_error_says_what_it_means(error: type[Exception]) -> None:
    assert error.__doc__
    assert str(error("where: what: remedy")) == "where: what: remedy"
