"""Find a handler's class: only what the configuration names is imported."""

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from gaiod.core.errors import GaiodError
from gaiod.handler.failures import place_of, words_of
from gaiod.handler.handler import Handler
from gaiod.kept_code import spec_of_file

GROUP = "gaiod.handlers"
"""The group of entry points under which a package offers handlers."""


class HandlerLoadError(GaiodError):
    """A handler cannot be used: not found, fails to import, or is none. The text says what to do."""


def is_file(reference: str) -> bool:
    """Tell whether a reference names a Python file, not a module or an entry point."""
    return reference.startswith("/")


def label_of(reference: str) -> str:
    """Return what metrics and logs call the handler: an entry point's name, or the class or file's."""
    path, _, name = reference.partition(":")
    return name or (Path(path).stem if is_file(reference) else path)


def load_handler(reference: str) -> type[Handler]:
    """Import a handler's class.

    Args:
        reference: the name of an entry point, `package.module:Class`, `/absolute/file.py`, which
            defines one handler, or `/absolute/file.py:Class`.

    Raises:
        HandlerLoadError: it cannot be used.
    """
    target, _, name = (reference if is_file(reference) or ":" in reference else _target_of(reference)).partition(":")
    module = _import_file(Path(target)) if is_file(target) else _import_module(target)
    if not name:
        return _only_handler(module, target)
    found = getattr(module, name, None)
    if found is None:
        raise HandlerLoadError(f"{target} has no {name}; {_handlers_in(module)}")
    if not (isinstance(found, type) and issubclass(found, Handler)):
        raise HandlerLoadError(f"{target}:{name} is not a handler; derive it from gaiod.Handler")
    return found


def installed() -> dict[str, str]:
    """Return the handlers that installed packages offer: name -> `package.module:Class`."""
    from importlib.metadata import entry_points  # late: costs a worker 3 MiB that it does not need

    return {point.name: point.value for point in entry_points(group=GROUP)}


def pinned(reference: str) -> str:
    """Return a reference that a worker can load without looking through the installed packages."""
    return reference if is_file(reference) or ":" in reference else _target_of(reference)


def module_of(reference: str) -> str:
    """Return the name of the module that a reference, once it is pinned, leads to."""
    target = reference.partition(":")[0]
    return _name_of_file(Path(target)) if is_file(target) else target


def build_options(handler: type[Handler], values: dict[str, Any]) -> Any:
    """Make a handler's options of plain values that were validated before; None if it has none."""
    return None if handler.Options is None else _build(handler.Options, values)


def _build(kind: Any, values: dict[str, Any]) -> Any:
    hints = get_type_hints(kind)
    return kind(**{key: _convert(hints[key], value) for key, value in values.items()})


def _convert(hint: Any, value: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if value is None:
        return None
    if origin in (Union, UnionType):
        return _convert(_alternative(arguments, value), value)
    if is_dataclass(hint):
        return _build(hint, value)
    if isinstance(value, list):
        items = [_convert(arguments[0], item) for item in value] if arguments else value
        return tuple(items) if origin is tuple or hint is tuple else items
    if isinstance(value, dict) and arguments:
        return {key: _convert(arguments[1], item) for key, item in value.items()}
    return value


def _alternative(alternatives: tuple[Any, ...], value: Any) -> Any:
    """Return what a value is meant as: of `str | Server` a mapping is a Server. None was dealt with.

    Of two dataclasses it is the one that requires nothing which the mapping lacks.
    """
    kinds = [each for each in alternatives if each is not NoneType]
    if len(kinds) == 1:
        return kinds[0]
    for each in kinds:
        family = get_origin(each) or each
        if isinstance(value, dict) and (family in (dict, Mapping) or (is_dataclass(each) and _is_made_of(each, value))):
            return each
        if isinstance(value, list) and family in (list, tuple, Sequence):
            return each
    return type(value)


def _is_made_of(kind: Any, values: dict[str, Any]) -> bool:
    required = {
        each.name for each in fields(kind) if each.init and each.default is MISSING and each.default_factory is MISSING
    }
    return required <= values.keys()


def _target_of(name: str) -> str:
    handlers = installed()
    if name not in handlers:
        raise HandlerLoadError(
            f"no installed package offers a handler {name}; there are {', '.join(sorted(handlers)) or 'none'}, "
            f"or give a file: ./{name}.py"
        )
    return handlers[name]


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise HandlerLoadError(f"there is no module {name}; install the package that has it") from error
        raise HandlerLoadError(_failure(name, error)) from error
    except BaseException as error:  # SystemExit, say: it must not end who imports
        raise HandlerLoadError(_failure(name, error)) from error


def _name_of_file(path: Path) -> str:
    return f"gaiod_handler_{path.stem}"


def _import_file(path: Path) -> ModuleType:
    name = _name_of_file(path)
    spec = spec_of_file(name, str(path))
    if spec is None or spec.loader is None:
        raise HandlerLoadError(f"there is no file {path}; paths are relative to the configuration file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # SystemExit, say: it must not end who imports
        del sys.modules[name]
        raise HandlerLoadError(_failure(str(path), error)) from error
    return module


def _failure(what: str, error: BaseException) -> str:
    """Say where an import failed, and how: the deepest place in the handler's own folder, if it is a file."""
    if isinstance(error, SyntaxError):
        return f"{what} is not valid Python: {error.filename}:{error.lineno}: {error.msg}; correct it"
    place = place_of(error, str(Path(what).parent) if is_file(what) else "")
    where = f" at {place}" if place else ""
    words = words_of(error)
    remedy = "install what it needs, or correct the import" if isinstance(error, ImportError) else "correct it"
    return f"importing {what} failed{where}: {words}{'' if words.endswith('?') else f'; {remedy}'}"


def _only_handler(module: ModuleType, target: str) -> type[Handler]:
    found = _defined_in(module)
    if len(found) != 1:
        raise HandlerLoadError(f"{target} does not have exactly one handler; {_handlers_in(module)}")
    return found[0]


def _defined_in(module: ModuleType) -> list[type[Handler]]:
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Handler) and value.__module__ == module.__name__
    ]


def _handlers_in(module: ModuleType) -> str:
    names = [found.__name__ for found in _defined_in(module)]
    if not names:
        return "it defines no handler: derive a class from gaiod.Handler"
    return f"it defines {', '.join(names)}: write {'one of them ' if len(names) > 1 else ''}behind a colon"
