"""config/proxy.yaml: what an operator reads about the proxy's options is what they are."""

import itertools
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from gaiod.handlers.proxy import Proxy
from gaiod.handlers.proxy.options import CheckOptions, ProxyOptions, ServerOptions
from gaiod.handlers.proxy.route import RouteOptions
from gaiod.handlers.proxy.tls import TlsOptions

from gaiod.config import load, loads
from gaiod.config.errors import Report
from gaiod.config.yaml import read_document
from gaiod.plugins import build_options

FILE = Path(__file__).parents[3] / "config" / "proxy.yaml"
TEXT = FILE.read_text()
WITH = ("listeners", "db", "with")
DEFAULTS = ProxyOptions(["127.0.0.1:5432"])
HEAD = "listeners: {db: {bind: 127.0.0.1:5433, handler: proxy, with: {"


def test_it_loads_to_exactly_the_defaults() -> None:
    (listener,) = load(FILE).listeners
    assert build_options(Proxy, dict(listener.options)) == DEFAULTS


def keys_of(options: Any, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the way to every option, sections included."""
    found = []
    for field in fields(options):
        if field.init:
            found.append((*above, field.name))
            value = getattr(options, field.name)
            found += keys_of(value, (*above, field.name)) if is_dataclass(value) else []
    return found


@pytest.mark.parametrize("keys", keys_of(DEFAULTS), ids=".".join)
def test_it_names_every_option_and_says_when_to_change_it(keys: tuple[str, ...]) -> None:
    document = read_document(TEXT, Report("proxy.yaml"))
    assert document
    at = (*WITH, *keys)
    assert at in document.keys
    if keys[-1] not in ("servers", "queue", "passive", "tcp"):
        above = TEXT.splitlines()[: document.place_of_key(at).line - 1]
        comment = list(itertools.takewhile(lambda line: line.lstrip().startswith("#"), reversed(above)))
        assert re.search(r"Change it|Raise|Lower", "\n".join(comment))


def commented(kind: type, key: str, indent: int = 3) -> str:
    """Return what the comments above a key say of the options of a mapping that is not there by default, as YAML."""
    lines = TEXT.splitlines()
    above = lines[: lines.index(next(line for line in lines if line.strip().startswith(f"{key}:")))]
    text = "\n".join(itertools.takewhile(lambda line: line.lstrip().startswith("#"), reversed(above)))
    options = {field.name for field in fields(kind) if field.init}
    names = "|".join(options)
    found = re.findall(rf"^ +#{' ' * indent}({names}): +(\S+)", text, re.MULTILINE)
    assert {name for name, _ in found} == options
    return ", ".join(f"{name}: {value}" for name, value in found)


def test_it_says_the_defaults_of_a_check_too() -> None:
    (listener,) = loads(f"{HEAD}servers: ['a:1'], check: {{{commented(CheckOptions, 'check')}}}}}}}}}").listeners
    assert build_options(Proxy, dict(listener.options)).check == CheckOptions()


def test_it_says_the_defaults_of_a_server_too() -> None:
    (listener,) = loads(f"{HEAD}servers: [{{{commented(ServerOptions, 'servers')}}}]}}}}}}").listeners
    assert build_options(Proxy, dict(listener.options)).entries == (ServerOptions("10.0.0.5:5432"),)


def test_it_says_the_defaults_of_tls_too() -> None:
    text = commented(TlsOptions, "servers", indent=5)
    (listener,) = loads(f"{HEAD}servers: [{{address: 'a:1', tls: {{{text}}}}}]}}}}}}").listeners
    assert build_options(Proxy, dict(listener.options)).entries[0].tls == TlsOptions()


def test_it_says_the_defaults_of_a_route_too() -> None:
    assert commented(RouteOptions, "route") == "timeout: 5s, alpn: {}, sni: {}"
    assert RouteOptions(sni={"a": "b"}) == RouteOptions(sni={"a": "b"}, alpn={}, timeout=5.0)


def test_it_fits_a_screen_in_width() -> None:
    assert all(len(line) <= 120 for line in TEXT.splitlines())
