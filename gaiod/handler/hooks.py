"""The hooks that a handler can have; and what is refused where its class is made, since it could never work."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType
from typing import Any

from gaiod.stats.cells import HOOKS

OTHER_NAMES = {
    "on_receive": "on_read", "on_data": "on_read", "on_send": "on_write", "on_accept": "on_open",
    "on_disconnect": "on_close", "on_end": "on_eof",
}  # fmt: skip
"""What other libraries call a hook of ours."""

MODULES = re.compile(r"\bgaiod\.(?:\w+\.)+")
"""What Python writes before our own types in a signature."""


def check_hook(name: str, owner: str) -> None:
    """Refuse a hook that does not exist: it would never be called, and nobody would know why.

    Raises:
        TypeError: there is none of this name; the text names the nearest.
    """
    if name.startswith("on_") and name not in HOOKS:
        raise TypeError(f"{owner}.{name} is not a hook; {_advice(name)}")


def check_methods(kind: type, base: type, names: Iterable[str]) -> None:
    """Refuse what a class has of these methods and cannot be called as that of `base` is, or does nothing when called.

    Args:
        kind: the class, derived from `base`; what it inherits of others is looked at, too.
        base: declares the methods, with the arguments that they are called with.
        names: of the methods.

    Raises:
        TypeError: a method can never work; the text says where it is, and what to write.
    """
    for name in names:
        for owner in _authors_classes(kind, base):
            if name in vars(owner):
                _check(f"{owner.__qualname__}.{name}", vars(owner)[name], vars(base)[name])
                break


def check_coroutine(kind: type, base: type, name: str, *, must_be: bool) -> None:
    """Refuse a method that is not `async` where it has to be, or cannot be called with the arguments of its base's.

    Args:
        kind: the class, derived from `base`.
        base: declares the method.
        name: of the method.
        must_be: whether it has to be `async`; else it may be.

    Raises:
        TypeError: it can never work; the text says where it is, and what to write.
    """
    for owner in _authors_classes(kind, base):
        if name in vars(owner):
            value = vars(owner)[name]
            if must_be and not inspect.iscoroutinefunction(value):
                where = f"{owner.__qualname__}.{name}{line_of(value)}"
                raise TypeError(f"{where} is not async; write {_wanted(vars(base)[name])}")
            _check(f"{owner.__qualname__}.{name}", value, vars(base)[name], may_be_async=True)
            break


def check_instance(made: object, base: type, names: Iterable[str]) -> None:
    """Refuse the same of methods that an instance has got for itself, in its `__init__` say."""
    for name in names:
        if name in vars(made):
            _check(f"{type(made).__qualname__}().{name}", staticmethod(vars(made)[name]), vars(base)[name])


def line_of(function: object) -> str:
    """Return where a function is defined, as ` at file:line`; empty: it has no code of its own to show."""
    code = getattr(function, "__code__", None)
    return "" if code is None else f" at {code.co_filename}:{code.co_firstlineno}"


def _authors_classes(kind: type, base: type) -> Iterator[type]:
    """Yield the classes whose methods come before those of `base`; others of its family were checked when made."""
    for owner in kind.__mro__:
        if owner is kind or not issubclass(owner, base):
            if owner is not object:
                yield owner
        else:
            return


def _check(name: str, value: Any, wanted: Any, *, may_be_async: bool = False) -> None:
    function: Any = value.__func__ if isinstance(value, classmethod | staticmethod) else value
    if not isinstance(value, classmethod | staticmethod | FunctionType) and hasattr(type(value), "__get__"):
        return  # a descriptor: what it makes is nobody's to know
    where = f"{name}{line_of(function)}"
    if not callable(function):
        raise TypeError(f"{where} is {function!r}, which cannot be called; write {_wanted(wanted)}")
    if inspect.isasyncgenfunction(function) or (inspect.iscoroutinefunction(function) and not may_be_async):
        raise TypeError(f"{where} is async, and gaiod would not await it; write {_wanted(wanted)}")
    returns = inspect.signature(_function_of(wanted)).return_annotation
    if returns in (None, "None") and inspect.isgeneratorfunction(function):
        raise TypeError(f"{where} has a yield: calling it does nothing; write {_wanted(wanted)} without")
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return  # it is compiled, and does not say
    takes_owner = isinstance(value, classmethod) or (
        isinstance(value, FunctionType) and isinstance(wanted, FunctionType)
    )
    count = len(inspect.signature(_function_of(wanted)).parameters) - (not takes_owner)
    try:
        signature.bind(*range(count))
    except TypeError as error:
        text = MODULES.sub("", str(signature))
        raise TypeError(f"{where} takes {text}: {error}; write {_wanted(wanted)}") from None


def _function_of(wanted: Any) -> Callable[..., Any]:
    function: Callable[..., Any] = wanted.__func__ if isinstance(wanted, classmethod) else wanted
    return function


def _wanted(wanted: Any) -> str:
    """Return the line that declares a method."""
    function = _function_of(wanted)
    before = "@classmethod def" if isinstance(wanted, classmethod) else "def"
    if inspect.iscoroutinefunction(function):
        before = f"async {before}"
    return f"{before} {function.__name__}{MODULES.sub('', str(inspect.signature(function)))}"


def _advice(name: str) -> str:
    from difflib import get_close_matches  # late: a worker whose handlers are right never needs it

    near = get_close_matches(name, (*HOOKS, *OTHER_NAMES), n=1)
    return f"did you mean {OTHER_NAMES.get(near[0], near[0])}?" if near else f"the hooks are {', '.join(HOOKS)}"
