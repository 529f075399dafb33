"""config/push.yaml: what an operator reads about the handler's options is what they are."""

import itertools
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from gaiod.handlers.push import Push
from gaiod.handlers.push.options import (
    EveryOptions,
    FeedOptions,
    HttpOptions,
    LinesOptions,
    PushOptions,
    RedisOptions,
    SubscribeOptions,
)

from gaiod.config import load, loads
from gaiod.config.errors import Report
from gaiod.config.yaml import read_document
from gaiod.plugins import build_options

FILE = Path(__file__).parents[3] / "config" / "push.yaml"
TEXT = FILE.read_text()
WITH = ("listeners", "ticks", "with")
DEFAULTS = PushOptions()
HEAD = "listeners: {ticks: {bind: 127.0.0.1:7002, handler: push, with: {"


def test_it_loads_to_exactly_the_defaults() -> None:
    (listener,) = load(FILE).listeners
    assert build_options(Push, dict(listener.options)) == DEFAULTS


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
    document = read_document(TEXT, Report("push.yaml"))
    assert document
    at = (*WITH, *keys)
    assert at in document.keys
    if keys[-1] != "slow_consumer":
        above = TEXT.splitlines()[: document.place_of_key(at).line - 1]
        comment = list(itertools.takewhile(lambda line: line.lstrip().startswith("#"), reversed(above)))
        assert re.search(r"Change it|Raise|Lower", "\n".join(comment))


def commented(kind: type) -> str:
    """Return what the comments say of the options of a mapping that is not there by default, as YAML."""
    own = {field.name for field in fields(kind)} - {field.name for field in fields(FeedOptions)}
    found = re.findall(rf"^ +# +({'|'.join(own)}): +(\"[^\"]*\"|\S+)", TEXT, re.MULTILINE)
    assert sorted(name for name, _ in found) == sorted(own)
    return ", ".join(f"{name}: {value}" for name, value in found)


def test_it_says_the_defaults_of_subscribe_too() -> None:
    (listener,) = loads(f"{HEAD}subscribe: {{{commented(SubscribeOptions)}}}}}}}}}").listeners
    assert build_options(Push, dict(listener.options)).subscribe == SubscribeOptions()


@pytest.mark.parametrize(
    ("defaults", "more"),
    [
        (EveryOptions(every=1.0), ""),
        (LinesOptions(lines="/var/log/ticks.log"), ""),
        (HttpOptions(http="127.0.0.1:7080"), ""),
        (RedisOptions(redis="redis://127.0.0.1:6379/0", streams=["a"]), "streams: [a]"),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_it_says_the_defaults_of_each_kind_of_source_too(defaults: FeedOptions, more: str) -> None:
    said = commented(type(defaults))
    text = re.sub(r"streams: \[\]", more, said) if more else said
    (listener,) = loads(f"{HEAD}source: {{{text}}}}}}}}}").listeners
    assert build_options(Push, dict(listener.options)).feeds == (defaults,)


def test_it_says_what_every_source_may_have() -> None:
    for field in fields(FeedOptions):
        assert re.search(rf"^ +#   {field.name}: ", TEXT, re.MULTILINE)


def test_it_fits_a_screen_in_width() -> None:
    assert all(len(line) <= 120 for line in TEXT.splitlines())
