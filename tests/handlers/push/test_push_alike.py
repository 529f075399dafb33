"""Sources of push that a reload leaves alone: those that were made with the same options."""

import re

import pytest
from gaiod.handlers.push import Push

from gaiod import Source
from gaiod.config import loads
from gaiod.plugins import build_options

SOURCES = (
    "{every: 1s}",
    "{lines: /var/log/x}",
    "{lines: 'unix:/run/x'}",
    "{http: 127.0.0.1:7080}",
    "{redis: 'redis://127.0.0.1/0', streams: [t]}",
)


def source(text: str, more: str = "topic: t") -> Source:
    """Return the only source of a listener; `more` are other options."""
    config = f"listeners: {{ticks: {{bind: 127.0.0.1:1, handler: push, with: {{source: {text}, {more}}}}}}}"
    (listener,) = loads(config).listeners
    (made,) = Push.sources_of(build_options(Push, dict(listener.options)))
    assert isinstance(made, Source)
    return made


@pytest.mark.parametrize("text", SOURCES)
def test_source_is_like_another_that_differs_in_what_does_not_concern_it(text: str) -> None:
    other = "topic: t, framing: raw, last_value: true, slow_consumer: {grace: 9s}, memory_limit: 1GiB"
    assert source(text) == source(text, other)


@pytest.mark.parametrize("text", SOURCES)
def test_source_is_not_like_another_that_has_other_options_or_another_topic(text: str) -> None:
    assert source(text) != source(text.replace("}", ", name: other}"))
    assert source(text) != source(re.sub(r"streams: \[t\]", "streams: [u]", text), "topic: u")


def test_sources_of_different_kinds_are_not_alike() -> None:
    made = [source(text) for text in SOURCES]
    assert [[one == other for other in made] for one in made] == [[one is other for other in made] for one in made]


def test_http_is_not_like_another_that_offers_other_topics() -> None:
    text = "{http: 127.0.0.1:7080}"
    assert source(text, "subscribe: {topics: [a]}") != source(text, "subscribe: {topics: [a, b]}")
    assert source(text, "subscribe: {topics: [a]}") == source(text, "subscribe: {topics: [a], topics_max: 1}")
