"""Find each listener's handler, and check what its `with:` says against the handler's own options."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

from gaiod.config.errors import Keys, Refused, Report, dotted
from gaiod.config.options import check_options, place_of_value
from gaiod.config.references import resolve_reference
from gaiod.config.yaml import Document
from gaiod.runtime import plugins
from gaiod.runtime.handler import Handler

LoadHandler = Callable[[str], type[Handler]]
"""Takes a reference, imports the handler, returns its class; raises HandlerLoadError."""


@dataclass(frozen=True, slots=True)
class HandlerUse:
    """What one listener says of its handler: plain values, as `ListenerSettings` holds them."""

    reference: str
    options: dict[str, Any]


def check_handlers(
    document: Document, report: Report, *, folder: Path | None, load_handler: LoadHandler | None
) -> dict[str, HandlerUse]:
    """Return each listener's handler, imported and its options checked, by the listener's name.

    A listener whose handler cannot be used is left out, and why goes into `report`. `load_handler` None:
    the one that workers use.
    """
    load = load_handler or plugins.load_handler
    uses = {}
    for name, listener in _listeners(document.value):
        keys = ("listeners", name)
        try:
            reference = resolve_reference(listener["handler"], folder)
            handler = load(reference)
        except (Refused, plugins.HandlerLoadError) as error:
            report.add(document.place_of((*keys, "handler")), (*keys, "handler"), str(error))
            continue
        uses[name] = HandlerUse(reference, _options(handler, listener, keys, document, report))
    return uses


def _listeners(config: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the listeners that have a handler to look at; the schema has complained about the others."""
    match config:
        case {"listeners": dict(listeners)}:
            for name, listener in listeners.items():
                match listener:
                    case {"handler": str()}:
                        yield name, listener


def _options(
    handler: type[Handler], listener: dict[str, Any], keys: Keys, document: Document, report: Report
) -> dict[str, Any]:
    values = listener.get("with", {})
    at = (*keys, "with")
    if not isinstance(values, dict):
        return {}
    if handler.Options is None:
        if values:
            report.add(document.place_of_key(at), at, f"{handler.__name__} takes no options; remove it")
        return {}
    if not is_dataclass(handler.Options):
        message = f"{handler.__name__}.Options is no dataclass; put @dataclass above it"
        report.add(document.place_of((*keys, "handler")), (*keys, "handler"), message)
        return {}
    options = check_options(handler.Options, values, at, document, report)
    if any(error.key.startswith(dotted(at)) for error in report.errors):
        return options
    if wrong := _refusal(handler, options):
        report.add(place_of_value(at, document), at, wrong)
    return options


def _refusal(handler: type[Handler], options: dict[str, Any]) -> str:
    """Say why the handler refuses options that have the right types; empty: it takes them."""
    try:
        plugins.build_options(handler, options)
    except ValueError as error:
        return str(error)
    except Exception as error:  # a handler may raise anything, and the operator needs the place
        return f"{handler.__name__} failed with {type(error).__name__}, {error}; correct the handler"
    return ""
