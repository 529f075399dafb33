"""Find each listener's handler, and check what its `with:` says against the handler's own options."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

from gaiod.config.errors import Keys, Refused, Report
from gaiod.config.options import check_options
from gaiod.config.references import resolve_reference
from gaiod.config.yaml import Document

LoadHandler = Callable[[str], type]
"""Takes a reference, imports the handler, returns its class; raises HandlerLoadError."""


@dataclass(frozen=True, slots=True)
class HandlerUse:
    """What one listener says of its handler: plain values, as `ListenerSettings` holds them."""

    reference: str
    options: dict[str, Any] = field(default_factory=dict)


def check_handlers(
    document: Document, report: Report, *, folder: Path | None, load_handler: LoadHandler | None
) -> dict[str, HandlerUse]:
    """Return each listener's handler, imported and its options checked, by the listener's name.

    A listener whose handler cannot be used is left out, and why goes into `report`. `load_handler` None:
    the one that workers use.
    """
    # Late: nothing else here needs it, and it brings the handlers' API along.
    from gaiod.runtime import plugins

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
    handler: type, listener: dict[str, Any], keys: Keys, document: Document, report: Report
) -> dict[str, Any]:
    values = listener.get("with", {})
    if not isinstance(values, dict):
        return {}
    options = getattr(handler, "Options", None)
    if options is None:
        if values:
            at = (*keys, "with")
            report.add(document.place_of_key(at), at, f"{handler.__name__} takes no options; remove it")
        return {}
    if not is_dataclass(options):
        at = (*keys, "handler")
        message = f"{handler.__name__}.Options is no dataclass; put @dataclass above it"
        report.add(document.place_of(at), at, message)
        return {}
    return check_options(options, values, (*keys, "with"), document, report)
