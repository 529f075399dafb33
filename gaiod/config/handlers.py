"""Find each listener's handler, and check what its `with:` says against the handler's own options."""

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from gaiod.addresses import parse_address
from gaiod.config.errors import Keys, Refused, Report, dotted
from gaiod.config.options import check_options
from gaiod.config.references import resolve_reference
from gaiod.config.schema import LISTENER
from gaiod.config.yaml import Document
from gaiod.handler.failures import folder_of, place_of, words_of
from gaiod.handler.handler import CALLED, PUBLISH, Handler, Source
from gaiod.handler.hooks import check_instance, line_of
from gaiod.plugins import HandlerLoadError, build_options
from gaiod.plugins import load_handler as find_handler

SERVERS_MAX = 256
"""Per listener: each has 10 series in the metrics, and a row of memory in every worker."""

SOURCES_MAX = 64
"""Per listener: each has 5 series in the metrics, and may have a thread in the feeder."""

LoadHandler = Callable[[str], type[Handler]]
"""Takes a reference, imports the handler, returns its class; raises HandlerLoadError."""


@dataclass(frozen=True, slots=True)
class HandlerUse:
    """What one listener says of its handler: plain values, as `ListenerSettings` holds them."""

    reference: str
    options: dict[str, Any]
    servers: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    inlets: tuple[tuple[str, str], ...] = ()
    takes_admin_state: bool = False
    has_state: bool = False
    buffer_limit_bytes: int | None = None
    notsent_lowat_bytes: int | None = None


def check_handlers(
    document: Document,
    report: Report,
    *,
    folder: Path | None,
    load_handler: LoadHandler | None,
    entering: Callable[[str], None],
) -> dict[str, HandlerUse]:
    """Return each listener's handler, imported and its options checked, by the listener's name.

    A listener whose handler cannot be used is left out, and why goes into `report`. `load_handler` None:
    the one that workers use. `entering` is told what is done next that runs a handler's own code, which may hang.
    """
    load = load_handler or find_handler
    uses = {}
    for name, listener in _listeners(document.value):
        keys = ("listeners", name)

        def enter(what: str, name: str = name) -> None:
            entering(f"listener {name}: {what}")

        try:
            reference = resolve_reference(listener["handler"], folder)
            enter(f"importing {reference}")
            handler = load(reference)
            enter("checking its options")
        except (Refused, HandlerLoadError) as error:
            report.add(document.place_of((*keys, "handler")), (*keys, "handler"), str(error))
            continue
        if _starts_tls(listener) and handler.on_tls is Handler.on_tls:
            start = (*keys, "tls", "start")
            wrong = f"is handler, but {handler.__name__} has no on_tls() and begins no TLS; write immediate"
            report.add(document.place_of(start), start, wrong)
        options = _options(handler, listener, keys, document, report)
        if options is not None:
            try:
                uses[name] = _use(reference, handler, options, enter)
            except Refused as refused:
                at = (*keys, "with")
                report.add(document.place_of(at), at, str(refused))
    return uses


def _listeners(config: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the listeners that have a handler to look at; the schema has complained about the others."""
    match config:
        case {"listeners": dict(listeners)}:
            for name, listener in listeners.items():
                match listener:
                    case {"handler": str()}:
                        yield name, listener


def _starts_tls(listener: dict[str, Any]) -> bool:
    """Tell whether TLS is to begin when the handler says so."""
    match listener:
        case {"tls": {"start": "handler"}}:
            return True
    return False


def _use(
    reference: str, handler: type[Handler], options: dict[str, Any], entering: Callable[[str], None]
) -> HandlerUse:
    """Ask a handler what it makes of options that have the right types, and make one.

    Raises:
        Refused: it does not take them.
    """
    try:
        built = build_options(handler, options)
        sources = _sources(handler, built)
        use = HandlerUse(
            reference,
            options,
            servers=_servers(handler, built),
            sources=(PUBLISH, *(source.name for source in sources)) if _takes_messages(handler) else (),
            inlets=tuple(_inlets(sources)),
            takes_admin_state=handler.on_admin_state is not Handler.on_admin_state,
            has_state=handler.state_version is not None,
            buffer_limit_bytes=_bytes("buffer_limit_of", handler.buffer_limit_of(built)),
            notsent_lowat_bytes=_bytes("notsent_lowat_of", handler.notsent_lowat_of(built)),
        )
    except ValueError as error:
        raise Refused(str(error)) from error
    except BaseException as error:  # a handler may raise anything, and the operator needs the place
        text = f"{handler.__name__} failed with {type(error).__name__}, {error}; correct the handler"
        raise Refused(text) from error
    entering("making its handler")
    _make(handler, built)
    return use


def _make(handler: type[Handler], options: Any) -> None:
    """Make an instance, as each worker does.

    Raises:
        Refused: there can be none.
    """
    where = f"{handler.__qualname__}.__init__{line_of(handler.__init__)}"
    try:
        inspect.signature(handler).bind(options)
    except TypeError as error:
        declared = "def __init__(self, options: Any = None) -> None, and in it super().__init__(options)"
        raise Refused(f"{where} does not take the options: {error}; write {declared}") from error
    except ValueError:
        pass  # it is compiled, and does not say
    try:
        made = handler(options)
    except BaseException as error:
        place = place_of(error, folder_of(handler))
        raise Refused(
            f"{where} raised {words_of(error)} (at {place}); correct it: `gaiod check` makes a handler, too"
        ) from error
    try:
        check_instance(made, Handler, CALLED)
    except TypeError as error:
        raise Refused(str(error)) from error


def _options(
    handler: type[Handler], listener: dict[str, Any], keys: Keys, document: Document, report: Report
) -> dict[str, Any] | None:
    """Return the options as plain values; None after a problem, which is reported."""
    values = listener.get("with", {})
    at = (*keys, "with")
    document.values.setdefault(at, document.place_of((*keys, "handler")))  # what an absent `with:` lacks is said there
    if not isinstance(values, dict):
        return None
    if handler.Options is None:
        if values:
            report.add(document.place_of_key(at), at, f"{handler.__name__} takes no options; remove it")
            return None
        return {}
    if not is_dataclass(handler.Options):
        message = f"{handler.__name__}.Options is no dataclass; put @dataclass above it"
        report.add(document.place_of((*keys, "handler")), (*keys, "handler"), message)
        return None
    for key in listener.keys() & {option.name for option in fields(handler.Options)} - LISTENER.keys.keys():
        report.refine((*keys, key), f"is an option of {handler.__name__}; write it below with:")
    options = check_options(handler.Options, values, at, document, report, beside=LISTENER.keys)
    return None if any(error.key.startswith(dotted(at)) for error in report.errors) else options


def _servers(handler: type[Handler], options: Any) -> tuple[str, ...]:
    """Return the labels of a listener's servers.

    Raises:
        Refused: there are too many, or two of the same name.
        TypeError: they are no labels.
    """
    servers = tuple(handler.servers_of(options))
    if not _are_labels(servers):
        raise TypeError(f"servers_of() returned {servers!r}, which are not printable names")
    _check_labels("server", servers, SERVERS_MAX)
    return servers


def _takes_messages(handler: type[Handler]) -> bool:
    return handler.on_message is not Handler.on_message


def _sources(handler: type[Handler], options: Any) -> tuple[Source, ...]:
    """Return a listener's sources.

    Raises:
        Refused: there are too many, or two of the same name.
        TypeError: they are no sources with a name, or nobody takes what they publish.
    """
    sources = tuple(handler.sources_of(options))
    names: tuple[Any, ...] = tuple(getattr(source, "name", None) for source in sources)
    if not (all(isinstance(source, Source) for source in sources) and _are_labels(names)):
        raise TypeError(f"sources_of() returned {sources!r} with the names {names!r}, which are not printable")
    if sources and not _takes_messages(handler):
        raise TypeError(f"sources_of() returned {', '.join(names)}, and there is no on_message() to take messages")
    if PUBLISH in names:
        raise Refused(f"has a source called {PUBLISH!r}, as `gaiod publish` is; give it another name")
    _check_labels("source", names, SOURCES_MAX)
    return sources


def _inlets(sources: tuple[Source, ...]) -> Iterator[tuple[str, str]]:
    """Yield where sources listen: the name of each and the address, written in the one way that there is.

    Raises:
        Refused: a source listens at what is no such address.
    """
    for source in sources:
        for text in source.listens_on:
            try:
                address = parse_address(text, listen=True)
            except ValueError as error:
                raise Refused(f"source {source.name}: {error}") from error
            if not address.is_local or address.is_any_port:
                raise Refused(
                    f"source {source.name}: a source serves this machine alone, and not {address}; "
                    "write 127.0.0.1:PORT, [::1]:PORT or unix:/absolute/path"
                )
            yield source.name, str(address)


def _are_labels(names: tuple[Any, ...]) -> bool:
    return all(isinstance(name, str) and name and name.isprintable() for name in names)


def _check_labels(what: str, names: tuple[str, ...], limit: int) -> None:
    """Raise Refused, unless they are few enough and each is another."""
    if len(names) > limit:
        raise Refused(f"has {len(names)} {what}s; give at most {limit} to a listener")
    for name, count in Counter(names).items():
        if count > 1:
            raise Refused(f"has {count} {what}s called {name!r}; give each a name of its own")


def _bytes(method: str, size: Any) -> int | None:
    """Return what a method of a handler returned.

    Raises:
        TypeError: it is no number.
    """
    if not (size is None or (type(size) is int and size >= 0)):
        raise TypeError(f"{method}() returned {size!r}, which is not a number of bytes")
    return size
