"""What no key can say alone: two that listen in one place, a group without a user, a listener that nobody may use.

Looks at the values as the file has them, so that these problems are told in one go with those of single keys. Where
sources listen, their handlers say, so that is checked later.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from gaiod.addresses import SYSTEMD, UNIX, parse_address
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
NO_ADDRESS = "has no effect: peers of a unix socket have no address; remove it, or add proxy_protocol"

ONLY_UNIX = "has unix: alone, and the listener has no unix socket; write the balancer's network"


def check_together(document: Document, report: Report) -> None:
    """Report the values that do not go together; those that are wrong alone are the schema's to report."""
    _check_places(document, report)
    _check_group(document, report)
    _check_proxy_protocol(document, report)
    _check_per_address(document, report)


def check_inlets(document: Document, report: Report, inlets: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Report each source that listens where something else does.

    Args:
        document: the file.
        report: takes the problems.
        inlets: by listener, the name of a source and its address.
    """
    taken = _taken(document)
    for place, claim in _given(document):
        taken.setdefault(place, claim)
    for listener, pairs in inlets.items():
        texts = list(document.texts_of(listener))
        for source, address in pairs:
            keys: Keys = ("listeners", listener, "with")
            found = next((each for each in texts if _is_address(each[1], address)), None)
            if found is not None:
                texts.remove(found)  # another source that has the address has it by another text
                keys = found[0]
            if address in taken:
                what = _what_of(document, taken[address], keys)
                report.add(document.place_of(keys), keys, f"source {source} has {what} too; write another")
            else:
                taken[address] = keys


def _is_address(text: str, address: str) -> bool:
    try:
        return str(parse_address(text, listen=True)) == address
    except ValueError:
        return False


def _check_places(document: Document, report: Report) -> None:
    taken = _taken(document)
    for place, keys in _given(document):
        first = taken.setdefault(place, keys)
        if first != keys:
            report.add(document.place_of(keys), keys, f"is {_what_of(document, first, keys)} too; write another")


def _taken(document: Document) -> dict[str, Keys]:
    """Return the places that are taken although no key says so."""
    return {} if METRICS_LISTEN in document.values else {Settings(()).metrics_listen: METRICS_LISTEN}


def _given(document: Document) -> list[tuple[str, Keys]]:
    """Return the places that keys claim, in the order of the file."""
    given = sorted(_places(document.value), key=lambda place: document.place_of(place[0]))
    return [(place, keys) for keys, place in given]


def _what_of(document: Document, first: Keys, keys: Keys) -> str:
    where = dotted(first) if first in document.values else f"{dotted(first)} (by default)"
    return f"the {'path' if LOG_FILE in (first, keys) else 'address'} of {where}"


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


def _check_per_address(document: Document, report: Report) -> None:
    match document.value:
        case {"listeners": dict(listeners)}:
            for name, listener in listeners.items():
                match listener:
                    case {"proxy_protocol": dict()}:
                        pass
                    case {"bind": str(bind), "per_address": dict()} if bind.startswith(UNIX):
                        keys = ("listeners", name, "per_address")
                        report.add(document.place_of_key(keys), keys, NO_ADDRESS)


def _nobody(bind: str, networks: list[object]) -> str:
    if bind.startswith(UNIX):
        return "" if UNIX in networks else UNIX_UNLISTED
    if bind.startswith(SYSTEMD) or any(network != UNIX for network in networks):
        return ""
    return ONLY_UNIX
