"""Whatever the text: Settings, or ConfigErrors with places inside it; nothing else, and within a second."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gaiod.config import ConfigErrors, loads
from gaiod.handler.handler import Handler

Loader = Callable[[str], type[Handler]]

CORPUS = [file.read_text() for file in sorted((Path(__file__).parent / "refused").glob("*.yaml"))]
VALID = """workers: auto
pin_workers: true
heartbeat_timeout: 10s
slow_hook: 100ms
recycle: {age: 1d, memory: 512MiB, connections: false}
user: gaiod
group: adm
metrics: {listen: 127.0.0.1:9464}
control: {listen: unix:/run/gaiod/control.sock}
log: {format: json, file: /var/log/gaiod.log, connections: {close: true, every: 5s, rate: 10}}
listeners:
  kit: {bind: "[::1]:7000", handler: kit, with: {name: a, servers: [{address: b}], wait: 2s}}
  echo:
    bind: systemd:echo.socket
    handler: echo
    idle_timeout: 250ms
    keepalive: false
    proxy_protocol: {from: [10.0.0.0/8, "unix:", "::1/128"], timeout: 5s}
"""
PUNCTUATION = list("{}[],:?-\"'#|>!&*%\\\0\ufeff\u2028\t\n~ ")
MARKUP = [
    "- ",
    "? ",
    ": ",
    "&a ",
    "*a",
    "<<: ",
    "!!str ",
    "\n  ",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "'\\ud800'",
]
WORDS = "listeners metrics workers with bind handler kit servers null yes 010 22:22 2s 1e999 false systemd: unix:/"
TOKENS = [*PUNCTUATION, *MARKUP, *WORDS.split()]


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A text that is nearly right: pieces cut out of it, and tokens put in."""
    text = draw(st.just(VALID) | st.sampled_from(CORPUS))
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        text = text[:start] + draw(st.sampled_from(TOKENS) | st.text(max_size=4)) + text[end:]
    return text


@given(st.text() | st.lists(st.sampled_from(TOKENS), max_size=40).map("".join) | mutated())
@example("[" * 100_000)
@example('"\\UFFFFFFFF"')
@example("a: &a [*a]")
@example("x" * 900_000)
@example("x: " * 200_000)
@example("listeners: {echo: {" + "bnid: 1, " * 5_000 + "}}")
@example("\n".join(f"unknown{number}: yes" for number in range(5_000)))
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_gives_settings_or_errors_with_places(load_handler: Loader, text: str) -> None:
    start = time.process_time()
    try:
        loads(text, load_handler=load_handler)
    except ConfigErrors as errors:
        assert errors.errors
        lines = len(re.findall(r"[\n\r\x85\u2028\u2029]", text)) + 1
        found = errors.errors
    else:
        found, lines = (), 0
    assert time.process_time() - start < 5  # on a loaded machine a second of CPU time is not what it is elsewhere
    assert all(1 <= error.line <= lines and error.column >= 1 for error in found)


def test_text_that_everything_starts_from_is_valid(load_handler: Loader) -> None:
    """Else the mutations above would start from nothing."""
    assert len(loads(VALID, load_handler=load_handler).listeners) == 2


@pytest.mark.parametrize("text", CORPUS)
def test_text_cut_off_anywhere_gives_settings_or_errors(load_handler: Loader, text: str) -> None:
    for end in range(0, len(text), 7):
        try:
            loads(text[:end], load_handler=load_handler)
        except ConfigErrors as errors:
            assert str(errors)
