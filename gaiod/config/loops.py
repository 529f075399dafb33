"""Listeners that connect to themselves, or to each other in a circle: one client would take every place."""

import os
import socket
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from gaiod.addresses import parse_address
from gaiod.config.errors import Keys, Report
from gaiod.config.handlers import HandlerUse
from gaiod.config.yaml import Document

Host = IPv4Address | IPv6Address


class _Place(NamedTuple):
    """Where one listens, or connects to."""

    host: Host | None
    port: int
    path: str
    """Of a unix socket, its symbolic links followed: /var/run is /run."""


def check_loops(document: Document, report: Report, uses: Mapping[str, HandlerUse]) -> None:
    """Report each server through which a listener gets back to itself.

    `servers_of` names them. Names are not looked up: what they lead to now says little about later.
    """
    listeners = {name: _place_of(document.value["listeners"][name].get("bind"), listen=True) for name in uses}
    leads_to = {
        name: {server: _listeners_at(_place_of(server, listen=False), listeners) for server in use.servers}
        for name, use in uses.items()
    }
    for name, servers in leads_to.items():
        for server, following in servers.items():
            way = next(filter(None, (_way(each, name, leads_to) for each in following)), None)
            if way is not None:
                keys = _keys_of(document, name, server)
                report.add(document.place_of(keys), keys, _words(server, (name, *way)))


def _words(server: str, way: tuple[str, ...]) -> str:
    if len(way) == 2:
        return f"{server} is this listener itself; write the address of a server"
    return f"{server} leads back to this listener ({' -> '.join(way)}); write the address of a server"


def _way(start: str, goal: str, leads_to: Mapping[str, Mapping[str, list[str]]]) -> tuple[str, ...] | None:
    """Return the listeners from one to another, both included; None: there is no way."""
    ways: list[tuple[str, ...]] = [(start,)]
    seen = {start}
    for way in ways:
        if way[-1] == goal:
            return way
        for following in leads_to[way[-1]].values():
            for name in following:
                if name not in seen:
                    seen.add(name)
                    ways.append((*way, name))
    return None


def _listeners_at(server: _Place | None, listeners: Mapping[str, _Place | None]) -> list[str]:
    if server is None:
        return []
    return [name for name, place in listeners.items() if place is not None and _leads_to(server, place)]


def _leads_to(server: _Place, listener: _Place) -> bool:
    """Tell whether who connects to `server` gets the listener."""
    if (server.port, server.path) != (listener.port, listener.path):
        return False
    host, bound = server.host, listener.host
    if host is None or bound is None:
        return host is bound
    if host.is_unspecified:  # the kernel takes it for the loopback address
        host = ip_address("127.0.0.1" if host.version == 4 else "::1")
    if not bound.is_unspecified:
        return host == bound
    return bound.version == host.version and _is_own(host)  # [::] is bound without IPv4


def _is_own(host: Host) -> bool:
    """Tell whether an address is one of this machine's: only those can be bound."""
    if host.is_loopback:
        return True
    family = socket.AF_INET if host.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(host), 0))
    except OSError:
        return False
    return True


def _place_of(value: object, *, listen: bool) -> _Place | None:
    """Return the place that an address names; None where that is not known, or it is none."""
    try:
        address = parse_address(value, listen=listen) if isinstance(value, str) else None
    except ValueError:
        return None  # a label that is no address, or what the schema complains about
    if address is None or address.kind in ("name", "systemd") or address.is_any_port:
        return None
    if address.kind == "unix":
        return _Place(None, 0, os.path.realpath(address.path))
    host = ip_address(address.host)
    mapped = host.ipv4_mapped if isinstance(host, IPv6Address) else None
    return _Place(mapped or host, address.port, "")


def _keys_of(document: Document, name: str, server: str) -> Keys:
    """Return the way to the text that names a server; to the listener's `with:` where it is not there as such."""
    keys: Keys = ("listeners", name, "with")
    return next((found for found, text in document.texts_of(name) if text == server), keys)
