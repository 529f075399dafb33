"""What no key can say alone: two that listen in one place, a group without a user, a listener that nobody may use.

Looks at the values as the file has them, so that these problems are told in one go with those of single keys.
"""

from collections.abc import Callable, Iterator

from gaiod.addresses import SYSTEMD, UNIX
from gaiod.config.addresses import parse_control, parse_place
from gaiod.config.errors import Keys, Refused, Report, dotted
from gaiod.config.values import parse_log_file
from gaiod.config.yaml import Document
from gaiod.settings import Settings

METRICS_LISTEN: Keys = ("metrics", "listen")
CONTROL_LISTEN: Keys = ("control", "listen")
LOG_FILE: Keys = ("log", "file")

GROUP_ALONE = "has no effect without user; add user: NAME, or remove it"

UNIX_UNLISTED = "has no unix:, and peers of a unix socket have no address; add unix:"
ONLY_UNIX = "has unix: alone, and the listener has no unix socket; write the balancer's network"


def check_together(document: Document, report: Report) -> None:
    """Report the values that do not go together; those that are wrong alone are the schema's to report."""
    _check_places(document, report)
    _check_group(document, report)
    _check_proxy_protocol(document, report)


def _check_places(document: Document, report: Report) -> None:
    given = sorted(_places(document.value), key=lambda place: document.place_of(place[0]))
    taken: dict[str, Keys] = {}
    if METRICS_LISTEN not in document.values:
        taken[Settings(()).metrics_listen] = METRICS_LISTEN
    for keys, place in given:
        first = taken.setdefault(place, keys)
        if first != keys:
            where = dotted(first) if first in document.values else f"{dotted(first)} (by default)"
            noun = "path" if LOG_FILE in (first, keys) else "address"
            report.add(document.place_of(keys), keys, f"is the {noun} of {where} too; write another")


def _places(config: object) -> Iterator[tuple[Keys, str]]:
    """Yield every place of which there is only one, in one way to write it, and the keys that claim it."""
    for keys, value, parse in _claims(config):
        try:
            place = parse(value)
        except Refused:
            continue
        if place is not None:
            yield keys, place


def _claims(config: object) -> Iterator[tuple[Keys, object, Callable[[object], str | None]]]:
    match config:
        case {"metrics": {"listen": value}}:
            yield METRICS_LISTEN, value, _bind
    match config:
        case {"control": {"listen": value}}:
            yield CONTROL_LISTEN, value, parse_control
    match config:
        case {"log": {"file": value}}:
            yield LOG_FILE, value, _socket_of_log_file
    match config:
        case {"listeners": dict(listeners)}:
            for name, listener in listeners.items():
                match listener:
                    case {"bind": value}:
                        yield ("listeners", name, "bind"), value, _bind


def _bind(value: object) -> str | None:
    """Return where one listens; None: at a port of which there are many."""
    address = parse_place(value)
    return None if address.is_any_port else str(address)


def _socket_of_log_file(value: object) -> str | None:
    """Return the socket that would stand where the log is."""
    path = parse_log_file(value)
    return None if path is None else UNIX + path


def _check_group(document: Document, report: Report) -> None:
    match document.value:
        case {"group": str(), "user": user} if user is not False:
            return  # a user, or something the schema complains about
        case {"group": str()} if () not in document.incomplete:
            report.add(document.place_of_key(("group",)), ("group",), GROUP_ALONE)


def _check_proxy_protocol(document: Document, report: Report) -> None:
    """Report listeners that would believe nobody: peers of a unix socket have no address, others nothing else."""
    match document.value:
        case {"listeners": dict(listeners)}:
            for name, listener in listeners.items():
                match listener:
                    case {"bind": str(bind), "proxy_protocol": {"from": [_, *_] as networks}}:
                        wrong = _nobody(bind, networks)
                        if wrong:
                            keys = ("listeners", name, "proxy_protocol", "from")
                            report.add(document.place_of(keys), keys, wrong)


def _nobody(bind: str, networks: list[object]) -> str:
    if bind.startswith(UNIX):
        return "" if UNIX in networks else UNIX_UNLISTED
    if bind.startswith(SYSTEMD) or any(network != UNIX for network in networks):
        return ""
    return ONLY_UNIX
