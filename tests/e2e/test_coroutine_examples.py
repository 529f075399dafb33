"""The examples that are coroutines, each with the clients that people have."""

import re
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from core.support.sockets import pattern, receive
from core.support.waiting import LIMIT_S

from e2e.support.clients import connect
from e2e.support.daemons import Daemon
from e2e.support.starting import Start
from e2e.support.tools import tool

EXAMPLES = Path(__file__).parents[2] / "config" / "examples"


def serve(daemon: Start, name: str, options: str = "", more: str = "") -> Daemon:
    """Serve an example, and what stands in `more`."""
    return daemon(
        'metrics: {listen: "127.0.0.1:0"}\nlisteners:\n'
        f'  {name}: {{bind: "127.0.0.1:0", handler: {EXAMPLES}/{name}.py, with: {{{options}}}}}\n{more}'
    )


def run(*command: str) -> str:
    """Return what a client prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=6 * LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def said(running: Daemon, name: str, data: bytes) -> bytes:
    """Return all that a listener answers to a client that sends this, and then no more."""
    with connect(running.address(name)) as sock:
        sock.sendall(data)
        sock.shutdown(1)
        with sock.makefile("rb") as file:
            return file.read()


# -- HTTP ------------------------------------------------------------------------------------------------


def test_curl_is_answered_on_one_connection(daemon: Start) -> None:
    tool("curl", "curl")
    running = serve(daemon, "hello", "name: everybody")
    url = f"http://{running.address('hello')}"
    assert run("curl", "-s", f"{url}/", f"{url}/") == "hello, everybody\n" * 2
    assert run("curl", "-s", "-w", "%{http_code}", "-d", "some text", f"{url}/echo") == "some text200"
    assert run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"{url}/nowhere") == "404"
    assert run("curl", "-s", "-I", f"{url}/").startswith("HTTP/1.1 200 OK")
    assert running.scrape().value("gaiod_connections_accepted_total", listener="hello", handler="hello", worker=0) == 4


def test_pipelined_requests_are_answered_in_their_order(daemon: Start) -> None:
    request = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"
    answers = said(serve(daemon, "hello"), "hello", request + b"1" + request + b"2" + b"GET / HTTP/1.0\r\n\r\n")
    assert re.findall(rb"\r\n\r\n([^H]*)", answers) == [b"1", b"2", b"hello, world\n"]


@pytest.mark.parametrize(
    ("request_text", "code"),
    [
        (b"no request\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (b"POST /echo HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 20000 + b"\r\n\r\n", 431),
        (b"DELETE / HTTP/1.1\r\n\r\n", 405),
    ],
)
def test_bad_request_is_told_so(daemon: Start, request_text: bytes, code: int) -> None:
    running = serve(daemon, "hello")
    assert said(running, "hello", request_text).startswith(b"HTTP/1.1 %d " % code)
    assert running.scrape().value("gaiod_handler_errors_total", handler="hello", hook="handle") == 0


def test_client_that_asks_for_nothing_is_told_so(daemon: Start) -> None:
    running = serve(daemon, "hello", "patience: 50ms")
    with connect(running.address("hello")) as sock, sock.makefile("rb") as file:
        assert file.read().startswith(b"HTTP/1.1 408 ")


# -- SOCKS5 ----------------------------------------------------------------------------------------------


def test_curl_reaches_a_server_by_its_name_and_by_its_number(daemon: Start) -> None:
    tool("curl", "curl")
    running = serve(daemon, "socks5", more='  echo: {bind: "127.0.0.1:0", handler: echo}\n')
    for option, host in (("--socks5-hostname", "localhost"), ("--socks5", "127.0.0.1")):
        url = f"http://{host}:{running.metrics.rpartition(':')[2]}/readyz"
        assert run("curl", "-s", "-w", "%{http_code}", option, running.address("socks5"), url).endswith("200")


def test_what_was_sent_at_once_with_the_request_arrives_and_large_answers_too(daemon: Start) -> None:
    running = serve(daemon, "socks5", more='  echo: {bind: "127.0.0.1:0", handler: echo}\n')
    port = int(running.address("echo").rpartition(":")[2])
    data = pattern(1 << 20)
    with connect(running.address("socks5")) as sock:
        sock.sendall(b"\5\1\0" + b"\5\1\0\1\x7f\0\0\1" + port.to_bytes(2, "big") + b"early")
        assert receive(sock, 2 + 10 + 5) == b"\5\0" + b"\5\0\0\1" + bytes(6) + b"early"
        for first in range(0, len(data), 65536):
            sock.sendall(data[first : first + 65536])
            assert receive(sock, 65536) == data[first : first + 65536]


@pytest.mark.parametrize(
    ("request_text", "answer"),
    [
        (b"\4\1\0", b"\5\xff"),
        (b"\5\1\2", b"\5\xff"),
        (b"\5\1\0\5\2\0\1\x7f\0\0\1\0\1", b"\5\0\5\7\0\1" + bytes(6)),
        (b"\5\1\0\5\1\0\1\x7f\0\0\1\0\1", b"\5\0\5\5\0\1" + bytes(6)),
        (b"\5\1\0\5\1\0\1\xc0\0\2\1\0\1", b"\5\0\5\2\0\1" + bytes(6)),
        (b"\5\1\0\5\1\0\3\x0fnowhere.invalid\0\1", b"\5\0\5\4\0\1" + bytes(6)),
    ],
    ids=["version", "methods", "command", "refused", "denied", "no such name"],
)
def test_request_that_cannot_be_is_refused_with_its_code(daemon: Start, request_text: bytes, answer: bytes) -> None:
    assert said(serve(daemon, "socks5"), "socks5", request_text) == answer


# -- Redis' protocol ---------------------------------------------------------------------------------------


def test_redis_cli_and_redis_benchmark_are_answered(daemon: Start) -> None:
    running = serve(daemon, "store")
    cli = [tool("redis-cli", "redis-tools"), "-p", running.address("store").rpartition(":")[2]]
    assert run(*cli, "set", "milk", "two bottles") == "OK\n"
    assert run(*cli, "get", "milk") == "two bottles\n"
    assert [run(*cli, "incr", "visits") for _ in range(2)] == ["1\n", "2\n"]
    assert run(*cli, "incr", "milk").startswith("ERR value is not an integer")
    assert run(*cli, "del", "milk", "nothing") == "1\n"
    assert run(*cli, "get", "milk") == "\n"
    assert run(*cli, "fly").startswith("ERR unknown command")
    benchmark = [tool("redis-benchmark", "redis-tools"), *cli[1:], "-n", "2000", "-c", "10", "-P", "16", "--csv"]
    assert re.search(r'^"SET","[0-9.]+"', run(*benchmark, "-t", "set,get"), re.MULTILINE)
    assert running.scrape().value("gaiod_handler_errors_total", handler="store", hook="handle") == 0


def test_words_are_taken_inline_too_and_empty_lines_are_none(daemon: Start) -> None:
    assert said(serve(daemon, "store"), "store", b"ping\r\n\r\nPING hello\nQUIT\r\nPING\r\n") == (
        b"+PONG\r\n$5\r\nhello\r\n+OK\r\n"
    )


@pytest.mark.parametrize("text", [b"*1\r\nX\r\n", b"*-1\r\n", b"*1\r\n$x\r\n", b"*1\r\n$9999999\r\n", b"*9999\r\n"])
def test_what_is_no_command_ends_the_connection(daemon: Start, text: bytes) -> None:
    assert said(serve(daemon, "store"), "store", text).startswith(b"-ERR Protocol error: ")


# -- chat --------------------------------------------------------------------------------------------------


def test_who_is_in_a_room_hears_what_is_said_there(daemon: Start) -> None:
    running = serve(daemon, "chat")
    with connect(running.address("chat")) as ann, connect(running.address("chat")) as bob:
        ann.sendall(b"ann\n")
        assert receive(ann, 23) == b"your name? ann is here\n"
        bob.sendall(b"ann\n")
        assert receive(bob, 11 + 28) == b"your name? taken, or no name; another? "
        bob.sendall(b"bob\nhello  there\n")
        heard = b"bob is here\nbob: hello there\n"
        assert receive(ann, len(heard)) == receive(bob, len(heard)) == heard
        bob.sendall(b"/join kitchen\nanybody?\n")
        assert receive(ann, 12) == b"bob is gone\n"
        assert receive(bob, 26) == b"bob is here\nbob: anybody?\n"
        bob.sendall(b"x" * 2000)
        with bob.makefile("rb") as file:
            assert file.readline() == b"that line is too long; good bye\n"
        ann.sendall(b"/quit\n")
        with ann.makefile("rb") as file:
            assert file.read() == b""


# -- look-ups ----------------------------------------------------------------------------------------------


def test_answers_come_from_the_database(daemon: Start, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "entries.db")) as database:
        database.execute("CREATE TABLE entries (key TEXT PRIMARY KEY, value TEXT)")
        database.executemany("INSERT INTO entries VALUES (?, ?)", [("milk", "two bottles"), ("eggs", "6")])
        database.commit()
    running = serve(daemon, "lookups", f"database: {tmp_path}/entries.db")
    assert said(running, "lookups", b"milk\neggs\nbread\n\xff\n") == b"two bottles\n6\nnothing\nnothing\n"


def test_database_that_cannot_be_asked_fails_the_start(daemon: Start, tmp_path: Path) -> None:
    options = f"handler: {EXAMPLES}/lookups.py, with: {{database: {tmp_path}/no}}"
    running = daemon(f'listeners: {{lookups: {{bind: "127.0.0.1:0", {options}}}}}\n', ready=False)
    assert running.wait() == 70
    assert "unable to open database file" in running.log()
