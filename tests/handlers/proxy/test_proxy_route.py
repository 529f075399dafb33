"""Servers by what clients ask for when they begin TLS: their bytes reach these as they came."""

import logging
import random
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from core.support.authority import authority
from core.support.tls_servers import tls_server
from gaiod.handlers.proxy import Proxy
from gaiod.handlers.proxy.client_hello import Hello
from gaiod.handlers.proxy.options import ProxyOptions
from gaiod.handlers.proxy.route import RouteOptions
from worker.support.hellos import message, names, protocols, records
from worker.support.proxying import Backend, Proxying, text_of

from gaiod import ProxyHeader, TlsFacts
from gaiod.config import ConfigErrors, loads
from gaiod.plugins import build_options
from gaiod.testing import Arrived, Close, Connect, Opened, Read, ScriptedConn, Started, assert_script

Start = Callable[..., Proxying]


def hello(name: str | None, *alpn: str) -> bytes:
    """Return a ClientHello."""
    parts = [] if name is None else [names(name.encode())]
    return records(message(*parts, *([protocols(*(text.encode() for text in alpn))] if alpn else [])))


ROUTE = {"sni": {"a.org": "a", "*.b.org": "b"}, "alpn": {"h2": "b"}}


@pytest.fixture
def three(start: Start, backends: Callable[[int], list[Backend]]) -> tuple[Proxying, list[Backend]]:
    """A proxy with a server for a, one for b, and one for others."""
    made = backends(3)
    pools = [{"address": backend.address, "pool": pool} for backend, pool in zip(made, ("a", "b", ""), strict=True)]
    return start(*pools, route=ROUTE), made


def routed(proxy: Proxying) -> dict[str, int]:
    results = ("sni", "alpn", "unknown_name", "no_name", "http", "not_tls", "malformed", "timeout")
    return {result: n for result in results if (n := proxy.count(f"upstream_route_{result}"))}


@pytest.mark.parametrize(
    ("name", "alpn", "number", "how"),
    [
        ("a.org", (), 0, "sni"),
        ("A.ORG", ("h2",), 0, "sni"),
        ("x.b.org", (), 1, "sni"),
        ("x.y.b.org", (), 2, "unknown_name"),
        ("b.org", ("x", "h2"), 1, "alpn"),
        ("else", (), 2, "unknown_name"),
        (None, ("http/1.1",), 2, "no_name"),
    ],
)
def test_client_reaches_the_server_for_what_it_asks(
    three: tuple[Proxying, list[Backend]], name: str | None, alpn: tuple[str, ...], number: int, how: str
) -> None:
    proxy, servers = three
    client = proxy.connect()
    client.sendall(hello(name, *alpn) + b"more")
    far = proxy.accepted_by(servers[number])
    assert proxy.receive(far, len(hello(name, *alpn)) + 4) == hello(name, *alpn) + b"more"
    proxy.carry(far, client, b"answer")
    proxy.carry(client, far, b"and on")
    assert routed(proxy) == {how: 1}


def test_message_that_comes_byte_by_byte_is_passed_on_as_it_came(three: tuple[Proxying, list[Backend]]) -> None:
    proxy, servers = three
    client = proxy.connect()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data = hello("a.org")
    for byte in data[:-1]:
        client.send(bytes([byte]))
        proxy.step(0)
    (conn,) = proxy.listener.clients()
    assert proxy.handler.phase_of(conn) == "hello"
    assert any("has not said yet which server it wants" in note for note in proxy.handler.notes_on(conn))
    client.send(data[-1:])
    assert proxy.receive(proxy.accepted_by(servers[0]), len(data)) == data


def test_handshake_and_what_follows_go_through_to_who_terminates_it(start: Start) -> None:
    with tls_server() as server, tls_server(authority().sign("DNS:else")) as other:
        pools = [{"address": text_of(each.address), "pool": pool} for each, pool in ((server, "a"), (other, ""))]
        proxy = start(*pools, route={"sni": {"localhost": "a"}}, send_proxy="none")
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cadata=authority().text)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # which is on as of Python 3.13; our authority is a plain one
        secured = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        client = proxy.connect()
        client.setblocking(False)

        def go_on(step: Callable[[], Any]) -> Any:
            done: list[Any] = []

            def look() -> bool:
                try:
                    done.append(step())
                except ssl.SSLWantReadError:
                    pass
                if outgoing.pending:
                    client.sendall(outgoing.read())
                try:
                    incoming.write(client.recv(65536))
                except BlockingIOError:
                    pass
                return bool(done)

            proxy.step_until(look, "the handshake going on")
            return done[0]

        go_on(secured.do_handshake)
        go_on(lambda: secured.write(b"hello"))
        assert go_on(lambda: secured.read(5)) == b"hello"


def test_client_that_no_server_is_for_gets_an_alert(start: Start, backend: Backend) -> None:
    proxy = start({"address": backend.address, "pool": "a"}, route={"sni": {"a.org": "a"}})
    for name in ("b.org", None):
        client = proxy.connect()
        client.sendall(hello(name))
        assert proxy.receive(client, 8) == b"\x15\x03\x03\x00\x02\x02\x70"  # unrecognized_name, and the end
        proxy.settle()
    assert proxy.unavailable() == {"no_route": 2}
    assert proxy.ends()[0] == ("no_server", "client", "error", "no_route", "hello", "-")


def test_unknown_name_is_logged_once_in_a_while(
    three: tuple[Proxying, list[Backend]], caplog: pytest.LogCaptureFixture
) -> None:
    proxy, servers = three
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            proxy.connect().sendall(hello("strange.org"))
            proxy.accepted_by(servers[2])
    assert caplog.text.count("127.0.0.1: it asks for strange.org, which route does not name") >= 1


@pytest.mark.parametrize(
    ("data", "cause"),
    [(b"GET / HTTP/1.1\r\n\r\n", "http"), (b"SSH-2.0-x\r\n", "not_tls"), (b"\x16\x03\x01\x00\x00", "malformed")],
)
def test_what_is_no_tls_is_refused(three: tuple[Proxying, list[Backend]], data: bytes, cause: str) -> None:
    proxy, servers = three
    client = proxy.connect()
    client.sendall(data)
    assert proxy.is_ended(client)
    proxy.settle()
    assert (routed(proxy), proxy.closes()) == ({cause: 1}, {"tls_error": 1})
    assert proxy.ends() == [("tls_error", "client", "error", cause, "hello", "-")]
    assert not any(server.waiting() for server in servers)


def test_client_that_does_not_say_what_it_wants_is_let_go(start: Start, backend: Backend) -> None:
    proxy = start({"address": backend.address, "pool": "a"}, route={"sni": {"a.org": "a"}, "timeout": 0.05})
    client = proxy.connect()
    client.sendall(hello("a.org")[:-1])
    assert proxy.is_ended(client)
    proxy.settle()
    assert (routed(proxy), proxy.closes()) == ({"timeout": 1}, {"deadline": 1})
    assert proxy.ends() == [("deadline", "client", "timeout", "route.timeout", "hello", "-")]


def test_client_that_goes_before_it_has_said_anything_is_its_own_matter(three: tuple[Proxying, list[Backend]]) -> None:
    proxy, _ = three
    client = proxy.connect()
    client.sendall(hello("a.org")[:10])
    client.close()
    proxy.settle()
    assert (routed(proxy), proxy.closes()) == ({}, {"peer_eof": 1})


def test_message_is_kept_for_the_server_that_takes_it_in_the_end(start: Start, backend: Backend) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        closed = text_of(gone.getsockname())
    pool = [{"address": address, "pool": "a"} for address in (closed, backend.address)]
    proxy = start(*pools_of(pool), route={"sni": {"a.org": "a"}}, send_proxy="v1")
    for _ in range(3):
        client = proxy.connect()
        client.sendall(hello("a.org"))
        far = proxy.accepted_by(backend)
        assert proxy.receive(far, 11) == b"PROXY TCP4 "
        line = b""
        while not line.endswith(b"\n"):
            line += proxy.receive(far, 1)
        assert proxy.receive(far, len(hello("a.org"))) == hello("a.org")


def test_server_that_the_client_names_is_announced_to_its_server(start: Start, backend: Backend) -> None:
    proxy = start({"address": backend.address, "pool": "a"}, route={"sni": {"a.org": "a"}}, send_proxy="v2")
    client = proxy.connect()
    client.sendall(hello("a.org"))
    ends = ProxyHeader(client.getsockname(), client.getpeername(), ((0x02, b"a.org"),))
    wanted = ends.encode_v2() + hello("a.org")
    assert proxy.receive(proxy.accepted_by(backend), len(wanted)) == wanted


def pools_of(servers: list[dict[str, str]]) -> list[dict[str, str]]:
    random.Random(1).shuffle(servers)
    return servers


def test_queues_of_pools_do_not_wait_for_each_other(start: Start, backends: Callable[[int], list[Backend]]) -> None:
    full, free = backends(2)
    pools = [{"address": full.address, "pool": "a", "connections_max": 1}, {"address": free.address}]
    proxy = start(*pools, route={"sni": {"a.org": "a"}})
    clients = [proxy.connect() for _ in range(2)]
    for client in clients:
        client.sendall(hello("a.org"))
    far = proxy.accepted_by(full)
    proxy.step_until(lambda: proxy.count("upstream_queued"), "one that waits")
    other = proxy.connect()
    other.sendall(hello("else"))
    assert proxy.receive(proxy.accepted_by(free), 3) == b"\x16\x03\x01"
    assert proxy.count("upstream_queued") == 1
    far.close()
    for client in clients:
        client.close()
    for each in (other, full, free):
        each.close()
    proxy.settle()


def test_what_was_agreed_decides_where_tls_is_terminated_here() -> None:
    servers = [{"address": "unix:/run/a.sock", "pool": "a"}, {"address": "unix:/run/b.sock", "pool": "b"}]
    for name, alpn, path in (("a.org", None, "/run/a.sock"), (None, "h2", "/run/b.sock")):
        handler = Proxy(build_options(Proxy, {"servers": servers, "route": ROUTE}))
        assert_script(handler, (Started(), []), (Opened(), [Read()]))
        conn: Any = ScriptedConn(tls=TlsFacts("1.3", "", alpn, name, resumed=False))
        asked: list[Any] = []

        def connect(target: Any, conn: Any = conn, asked: list[Any] = asked, **options: Any) -> Any:
            asked.append(target)
            return conn

        handler.connect = connect
        handler.on_open(conn)
        assert asked == [path]


# -- options -------------------------------------------------------------------------------------------------------


def test_exact_name_counts_before_a_wildcard_and_names_before_protocols() -> None:
    route = RouteOptions(sni={"*.org": "wide", "a.org": "exact"}, alpn={"h2": "two", "h3": "three"})
    assert route.pool_for(Hello("a.org", ("h2",))) == ("exact", "sni")
    assert route.pool_for(Hello("b.org")) == ("wide", "sni")
    assert route.pool_for(Hello("org", ("h1", "h3", "h2"))) == ("three", "alpn")
    assert route.pool_for(Hello("org")) == (None, "unknown_name")
    assert route.pool_for(Hello()) == (None, "no_name")


def load(servers: str, route: str) -> ProxyOptions:
    text = f"listeners:\n  db:\n    bind: 127.0.0.1:5433\n    handler: proxy\n    with:\n      servers: {servers}\n"
    settings = loads(f"{text}      route: {route}\n").listeners[0]
    options: ProxyOptions = build_options(Proxy, dict(settings.options))
    return options


def test_routes_are_read() -> None:
    options = load("[{address: 'a:1', pool: a}, 'b:1']", "{sni: {a.org: a, '*.a.org': a}, timeout: 1s}")
    assert options.route
    assert (options.route.sni, options.route.timeout) == ({"a.org": "a", "*.a.org": "a"}, 1.0)


@pytest.mark.parametrize(
    ("servers", "route", "message"),
    [
        ("['a:1']", "{sni: {a.org: a}}", "route names pool a, which no server has; write pool: a at one of servers"),
        (
            "[{address: 'a:1', pool: a}]",
            "false",
            "servers of pool a get no clients; name it in route, or remove it there",
        ),
        ("['a:1']", "{}", "route has neither sni nor alpn; write one, such as sni: {app.example.org: POOL}"),
        ("['a:1']", "{sni: {A.org: a}}", "has A.org; write a name in small letters, as DNS has it, such as app.exam"),
        ("['a:1']", "{sni: {'a.*.org': a}}", "has a.*.org; write a name in small letters"),
        ("['a:1']", "{sni: {a.org.: a}}", "has a.org.; write a name in small letters"),
        ("['a:1']", "{alpn: {'': a}}", 'has "", which names no protocol; write one such as h2 or postgresql'),
        ("['a:1']", "{sni: [a]}", "route.sni: is a list; write a mapping (key: value)"),
        ("['a:1']", "{sni: {a: 5}}", "is a whole number; write text"),
        ("['a:1']", "{sni: {a: a}, timeout: 5}", "route.timeout: 5 has no unit; write 5s"),
        ("[{address: 'a:1', pool: 5}]", "false", "pool: is a whole number; write text"),
    ],
)
def test_routes_that_cannot_be_are_refused(servers: str, route: str, message: str) -> None:
    with pytest.raises(ConfigErrors) as errors:
        load(servers, route)
    assert message in str(errors.value.errors[0])


def test_no_server_is_connected_to_before_the_message_is_there() -> None:
    unix = {"address": "unix:/run/a.sock", "pool": "a"}
    options = build_options(Proxy, {"servers": [unix], "route": {"sni": {"a": "a"}}})
    assert_script(Proxy(options), (Started(), []), (Opened(), [Read()]), (Arrived(b"GET / HTTP/1.1\r\n"), [Close()]))
    first = hello("a")
    assert_script(
        Proxy(options),
        (Started(), []),
        (Opened(), [Read()]),
        (Arrived(first[:7]), [Read()]),
        (Arrived(first[7:]), [Connect("/run/a.sock")]),
    )
