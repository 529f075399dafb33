"""Handlers are found, imported and asked for their options."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from gaiod.config import ConfigErrors, handlers, loads
from gaiod.config.handlers import SERVERS_MAX, SOURCES_MAX
from gaiod.handler.handler import Handler, Source
from gaiod.settings import Settings, settings_from

Loader = Callable[[str], type[Handler]]


def test_loader_gets_the_reference_that_the_settings_hold(load_handler: Loader) -> None:
    asked = []

    def load(reference: str) -> type:
        asked.append(reference)
        return load_handler("echo")

    settings = loads(
        "listeners:\n"
        "  a: {bind: 127.0.0.1:1, handler: ./shout.py:Shout}\n"
        "  b: {bind: 127.0.0.1:2, handler: pack.module:Class}\n",
        folder=Path("/etc/gaiod"),
        load_handler=load,
    )
    assert asked == ["/etc/gaiod/shout.py:Shout", "pack.module:Class"]
    assert [listener.handler for listener in settings.listeners] == asked


def test_loader_is_that_of_the_workers_when_none_is_given(
    monkeypatch: pytest.MonkeyPatch, load_handler: Loader
) -> None:
    monkeypatch.setattr(handlers, "find_handler", load_handler)
    assert loads("listeners: {a: {bind: 127.0.0.1:1, handler: echo}}").listeners[0].handler == "echo"


def test_handler_that_cannot_be_loaded_is_reported_at_each_place(load_handler: Loader) -> None:
    text = "listeners:\n  a: {bind: 127.0.0.1:1, handler: gone}\n  b: {bind: 127.0.0.1:2, handler: gone}\n"
    with pytest.raises(ConfigErrors) as errors:
        loads(text, load_handler=load_handler)
    assert [(error.line, error.column, error.key) for error in errors.value.errors] == [
        (2, 35, "listeners.a.handler"),
        (3, 35, "listeners.b.handler"),
    ]


def test_bug_in_a_loader_is_not_taken_for_a_mistake_in_the_file() -> None:
    def load(reference: str) -> type:
        raise ZeroDivisionError(reference)

    with pytest.raises(ZeroDivisionError):
        loads("listeners: {a: {bind: 127.0.0.1:1, handler: echo}}", load_handler=load)


def test_empty_with_is_fine_for_a_handler_without_options(load_handler: Loader) -> None:
    text = "listeners: {a: {bind: 127.0.0.1:1, handler: echo, with: {}}}"
    settings = loads(text, load_handler=load_handler)
    assert settings.listeners[0].options == {}


def _servers(count: int) -> str:
    servers = ", ".join(f"{{address: server-{number}}}" for number in range(count))
    return (
        f"listeners: {{a: {{bind: 127.0.0.1:1, handler: kit, with: {{name: x, buffer: 1KiB, servers: [{servers}]}}}}}}"
    )


def test_listener_has_the_servers_and_the_limit_that_its_handler_makes_of_the_options(load_handler: Loader) -> None:
    (listener,) = loads(_servers(3), load_handler=load_handler).listeners
    assert listener.servers == ("server-0", "server-1", "server-2")
    assert listener.buffer_limit_bytes == 1024


def test_handler_without_options_has_no_servers_and_no_limit(load_handler: Loader) -> None:
    (listener,) = loads("listeners: {a: {bind: 127.0.0.1:1, handler: echo}}", load_handler=load_handler).listeners
    assert (listener.servers, listener.buffer_limit_bytes) == ((), None)


def test_servers_are_bounded_because_each_has_series_of_its_own(load_handler: Loader) -> None:
    assert len(loads(_servers(SERVERS_MAX), load_handler=load_handler).listeners[0].servers) == SERVERS_MAX
    with pytest.raises(ConfigErrors, match=rf"listeners\.a\.with: has {SERVERS_MAX + 1} servers; give at most"):
        loads(_servers(SERVERS_MAX + 1), load_handler=load_handler)


@pytest.mark.parametrize("method", ["buffer_limit_of", "notsent_lowat_of"])
@pytest.mark.parametrize("size", [-1, 1.5, "much", True])
def test_size_that_is_no_number_of_bytes_is_a_bug_of_the_handler(size: Any, method: str) -> None:
    sizes = type("Sizes", (Handler,), {method: classmethod(lambda cls, options: size)})
    with pytest.raises(ConfigErrors, match=f"Sizes failed with TypeError, {method}"):
        loads("listeners: {a: {bind: 127.0.0.1:1, handler: x}}", load_handler=lambda reference: sizes)


class LatestFirst(Handler):
    """A handler for which it matters how much the kernel takes ahead."""

    @classmethod
    def notsent_lowat_of(cls, options: Any) -> int | None:
        return 8192


@pytest.mark.parametrize(
    ("written", "wanted"),
    [("", 8192), (", notsent_lowat: 64KiB", 65536), (", notsent_lowat: false", None)],
    ids=["not written", "a size", "no limit"],
)
def test_handler_says_how_much_the_kernel_takes_ahead_where_the_file_does_not(written: str, wanted: int | None) -> None:
    text = f"listeners: {{a: {{bind: 127.0.0.1:1, handler: x{written}}}}}"
    (listener,) = loads(text, load_handler=lambda reference: LatestFirst).listeners
    assert listener.notsent_lowat_bytes == wanted


# -- sources -----------------------------------------------------------------------------------------------


def _fed(count: int) -> str:
    names = ", ".join(f"s{number}" for number in range(count))
    return f"listeners: {{a: {{bind: 127.0.0.1:1, handler: fed, with: {{sources: [{names}]}}}}}}"


def test_listener_that_takes_messages_has_its_sources_and_the_one_of_the_command_line(load_handler: Loader) -> None:
    assert loads(_fed(0), load_handler=load_handler).listeners[0].sources == ("publish",)
    assert loads(_fed(2), load_handler=load_handler).listeners[0].sources == ("publish", "s0", "s1")


def test_listener_that_takes_no_messages_has_no_sources(load_handler: Loader) -> None:
    (listener,) = loads("listeners: {a: {bind: 127.0.0.1:1, handler: sourced}}", load_handler=load_handler).listeners
    assert listener.sources == ()


def test_sources_are_bounded_because_each_may_have_a_thread(load_handler: Loader) -> None:
    assert len(loads(_fed(SOURCES_MAX), load_handler=load_handler).listeners[0].sources) == SOURCES_MAX + 1
    with pytest.raises(ConfigErrors, match=rf"listeners\.a\.with: has {SOURCES_MAX + 1} sources; give at most"):
        loads(_fed(SOURCES_MAX + 1), load_handler=load_handler)


class Listening(Source):
    def __init__(self, *addresses: str) -> None:
        self.name = "in"
        self.listens_on = addresses


def _listening(*addresses: str) -> Loader:
    class Fed(Handler):
        @classmethod
        def sources_of(cls, options: Any) -> list[Source]:
            return [Listening(*addresses)]

        def on_message(self, topic: str, data: bytes) -> None: ...

    return lambda reference: Fed


def test_listener_knows_where_its_sources_listen_in_the_one_way_to_write_it() -> None:
    load_handler = _listening("[0::1]:80", "unix:/run//in.sock", "127.0.0.1:1")
    (listener,) = loads("listeners: {a: {bind: 127.0.0.1:1, handler: x}}", load_handler=_listening()).listeners
    assert listener.inlets == ()
    (listener,) = loads("listeners: {a: {bind: 127.0.0.1:2, handler: x}}", load_handler=load_handler).listeners
    assert listener.inlets == (("in", "[::1]:80"), ("in", "unix:/run/in.sock"), ("in", "127.0.0.1:1"))
    settings = Settings((listener,))
    assert settings_from(json.loads(json.dumps(asdict(settings)))) == settings


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("0.0.0.0:80", "serves this machine alone, and not 0.0.0.0:80; write 127.0.0.1:PORT"),
        ("[::]:80", "serves this machine alone"),
        ("127.0.0.1:0", "serves this machine alone, and not 127.0.0.1:0"),
        ("systemd:in", "serves this machine alone, and not systemd:in"),
        ("127.0.0.1", "127.0.0.1 has no port"),
        ("unix:in.sock", "is not an absolute path"),
        ("unix:/" + "x" * 107, "write one of at most 107"),
        ("localhost:80", "localhost is a host name"),
    ],
)
def test_source_that_listens_where_others_reach_it_or_nowhere_is_refused(address: str, problem: str) -> None:
    with pytest.raises(ConfigErrors, match=rf"listeners\.a\.with: source in: .*{re.escape(problem)}"):
        loads("listeners: {a: {bind: 127.0.0.1:1, handler: x}}", load_handler=_listening(address))


def test_source_that_is_none_is_a_bug_of_the_handler() -> None:
    class Fed(Handler):
        @classmethod
        def sources_of(cls, options: Any) -> Any:
            return ["clock"]

        def on_message(self, topic: str, data: bytes) -> None: ...

    with pytest.raises(ConfigErrors, match=r"Fed failed with TypeError, sources_of\(\) returned \('clock',\)"):
        loads("listeners: {a: {bind: 127.0.0.1:1, handler: x}}", load_handler=lambda reference: Fed)
