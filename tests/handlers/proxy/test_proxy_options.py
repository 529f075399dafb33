"""The proxy's `with:`: what it means, and what is said, and where, of what is wrong."""

from typing import Any

import pytest
from gaiod.handlers.proxy import Proxy
from gaiod.handlers.proxy.options import ProxyOptions, ServerOptions

from gaiod.config import ConfigErrors, loads
from gaiod.plugins import build_options, load_handler

TEXT = "listeners:\n  db:\n    bind: 127.0.0.1:5433\n    handler: proxy\n    with:\n"


def load(*lines: str) -> ProxyOptions:
    """Return the options as the handler gets them."""
    settings = loads(TEXT + "".join(f"      {line}\n" for line in lines)).listeners[0]
    options: ProxyOptions = build_options(Proxy, dict(settings.options))
    assert settings.servers == Proxy.servers_of(options)
    return options


def test_proxy_is_installed_under_its_name() -> None:
    assert load_handler("proxy") is Proxy


def test_servers_alone_are_enough() -> None:
    options = load("servers: [127.0.0.1:5432]")
    assert options == ProxyOptions(servers=["127.0.0.1:5432"])
    assert options.entries == (ServerOptions("127.0.0.1:5432"),)


def test_servers_may_be_texts_and_mappings() -> None:
    options = load(
        "servers:",
        "  - 127.0.0.1:5432",
        "  - {address: 'db:5432', weight: 3, connections_max: 100}",
        "  - {address: 'unix:/run/db.sock', backup: true}",
    )
    assert options.entries == (
        ServerOptions("127.0.0.1:5432"),
        ServerOptions("db:5432", weight=3, connections_max=100),
        ServerOptions("unix:/run/db.sock", backup=True),
    )
    assert Proxy.servers_of(options) == ("127.0.0.1:5432", "db:5432", "unix:/run/db.sock")


def test_every_other_key_is_understood() -> None:
    options = load(
        "servers: ['db:1']",
        "balance: source_hash",
        "connect_timeout: 2s",
        "retries: 0",
        "buffer_limit: 64KiB",
        "half_closed_timeout: 1m",
        "max_age: 1h",
        "queue: {length: 0, timeout: 1s}",
        "check: {interval: 500ms, timeout: 1s, rise: 1, fall: 2, send: PING, expect: PONG}",
        "passive: {failures: 1, eject: 1s, eject_max: 2s, slow_start: 0s}",
        "on_down: close",
        "send_proxy: v2",
        "resolve_interval: 1m",
        "tcp: {nodelay: false, keepalive: false, user_timeout: false, congestion: reno, notsent_lowat: 16KiB}",
    )
    assert (options.connect_timeout, options.buffer_limit, options.max_age) == (2.0, 65536, 3600.0)
    assert (options.queue.length, options.passive.slow_start, options.tcp.notsent_lowat) == (0, 0.0, 16384)
    assert options.check is not False
    assert (options.check.interval, options.check.send) == (0.5, "PING")
    assert Proxy.buffer_limit_of(options) == 65536


def test_empty_check_means_checks_with_every_default() -> None:
    assert load("servers: ['db:1']").check is False
    options = load("servers: ['db:1']", "check: {}")
    assert options.check is not False
    assert options.check.fall == 3


def test_bytes_of_a_check_are_those_that_the_file_says() -> None:
    check = load("servers: ['db:1']", r'check: {send: "PING\r\n\0", expect_hex: "00 84Ff"}').check
    assert check is not False
    assert (check.send_bytes, check.expect_bytes) == (b"PING\r\n\0", b"\x00\x84\xff")


AT = "listeners.db.with"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["retries: 1"], f"5:5: {AT}.servers: missing; add servers: a list"),
        (["servers: []"], f"6:16: {AT}.servers: names 0 servers; write 1 to 256"),
        (["servers: [a:1, b:2, A:1]"], f"6:16: {AT}.servers: names A:1 twice; write it once, with a weight"),
        (["servers: [a:1, {address: 'a:1'}]"], f"6:16: {AT}.servers: names a:1 twice; write it once"),
        (["servers: [{address: 'a:1', backup: true}]"], f"6:16: {AT}.servers: names only backups; write at least one"),
        (["servers: [a:1, b]"], f"6:22: {AT}.servers[1]: b has no port; write b:5432"),
        (["servers: [{address: b}]"], f"6:27: {AT}.servers[0].address: b has no port; write b:5432"),
        (["servers: [{weight: 2}]"], f"6:17: {AT}.servers[0].address: missing; add address: text"),
        (
            ["servers: [{address: 'a:1', weight: 0}]"],
            f"6:42: {AT}.servers[0].weight: 0 is out of range; write 1 to 256",
        ),
        (
            ["servers: [22:22]"],
            f"6:17: {AT}.servers[0]: 22:22 is a number in base 60 in some versions of YAML; put an address or text in",
        ),
        (
            ["servers: [{address: 22:22}]"],
            f"6:27: {AT}.servers[0].address: 22:22 is a number in base 60 in some versions of YAML; put",
        ),
        (["servers: [5]"], f"6:17: {AT}.servers[0]: is a whole number; write text or a mapping (key: value)"),
        (["servers: [a:1]", "balance: leastconn"], f"7:16: {AT}.balance: not one of the choices; did you mean"),
        (
            ["servers: [a:1]", "buffer_limit: 1KiB"],
            f"7:21: {AT}.buffer_limit: 1KiB is out of range; write 4KiB to 256KiB",
        ),
        (
            ["servers: [a:1]", "resolve_interval: 0s"],
            f"7:25: {AT}.resolve_interval: 0s is out of range; write 1s to 1h",
        ),
        (["servers: [a:1]", "tcp: {keepalive: 1500ms}"], f"7:24: {AT}.tcp.keepalive: is not in whole seconds"),
        (["servers: [a:1]", "passive: {eject: 10m}"], f"6:7: {AT}: passive.eject_max is below passive.eject; write"),
        (["servers: [a:1]", f"check: {{expect: {'x' * 4097}}}"], f"7:23: {AT}.check.expect: has 4097 bytes; write at"),
        (
            ["servers: [a:1]", "check: {send_hex: '0g'}"],
            f"7:25: {AT}.check.send_hex: is not hexadecimal; write two digits for each byte",
        ),
        (
            ["servers: [a:1]", "check: {send_hex: 84}"],
            f"7:25: {AT}.check.send_hex: is a whole number; write text (put it",
        ),
        (
            ["servers: [a:1]", "check: {send: x, send_hex: '00'}"],
            f"6:7: {AT}: check has send and send_hex; keep one of them",
        ),
        (
            ["servers: [a:1]", r'check: {send: "\x00\x84"}'],
            f"7:21: {AT}.check.send: holds U+0084, which is a character and not a byte; use send_hex or",
        ),
        (
            ["servers: [a:1]", "check: {expect: 5 €}"],
            f"7:23: {AT}.check.expect: holds U+20AC, which is a character and not a byte; use send_hex or",
        ),
        (
            ["servers: [a:1]", r"check: {send: 'PING\r\n'}"],
            rf"7:21: {AT}.check.send: holds a backslash and r, because \r means one character only in double",
        ),
        (["servers: [a:1]", "check: ~"], f"7:14: {AT}.check: is empty; write false or a mapping (key: value)"),
        (["servers: [a:1]", "check: true"], f"7:14: {AT}.check: is a boolean; write false or a mapping (key: value)"),
        (["servers: [a:1]", "tcp: {congestion: 5}"], f"7:25: {AT}.tcp.congestion: is a whole number; write false or"),
        (["servers: [a:1]", "chek: {}"], f"7:7: {AT}.chek: unknown option; did you mean check?"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(lines: list[str], message: str) -> None:
    with pytest.raises(ConfigErrors) as refused:
        load(*lines)
    (error,) = refused.value.errors
    assert str(error).removeprefix("<string>:").startswith(message)


def test_too_many_servers_are_refused() -> None:
    with pytest.raises(ConfigErrors, match="names 257 servers; write 1 to 256"):
        load(f"servers: [{', '.join(f'a{number}:1' for number in range(257))}]")


def test_congestion_control_that_this_machine_lacks_ends_the_making_of_the_handler() -> None:
    values: dict[str, Any] = {"servers": ["a:1"], "tcp": {"congestion": "none_such"}}
    with pytest.raises(ValueError, match=r"tcp.congestion: none_such cannot be used here, .*; write one of net.ipv4"):
        Proxy(build_options(Proxy, values))
