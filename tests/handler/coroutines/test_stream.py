"""Streams: what a coroutine reads and writes."""

import socket
from typing import Any

import pytest
from worker.conftest import Serve

from gaiod import EndOfStream, ForgottenAwait, LimitExceeded, Stream, UsageError
from handler.coroutines.support.handlers import Runs, reset

MANY = 4 * 1024 * 1024


async def answer(conn: Stream, data: bytes) -> None:
    """Write how long something is, and what."""
    await conn.write(b"%d:%b;" % (len(data), data))


# -- reading ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [[b"abcdefgh\nij;kl"], [bytes([byte]) for byte in b"abcdefgh\nij;kl"]])
def test_reads_have_what_they_ask_for_however_it_comes(serve: Serve, parts: list[bytes]) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        await answer(conn, await conn.read(1))
        await answer(conn, await conn.read_exactly(3))
        await answer(conn, await conn.read_until(b"\n"))
        await answer(conn, await conn.read_until(b";", limit=3))
        await answer(conn, await conn.read_exactly(0))
        await answer(conn, await conn.read_exactly(2))
        await answer(conn, await conn.read())

    handler = Runs(function)
    serving = serve(handler)
    sock = serving.connect()
    for part in parts:
        sock.sendall(part)
        for _ in range(3):
            serving.step()
    sock.shutdown(socket.SHUT_WR)
    expected = b"1:a;3:bcd;5:efgh\n;3:ij;;0:;2:kl;0:;"
    assert serving.receive(sock, len(expected)) == expected
    assert serving.is_ended(sock)
    assert handler.end(serving) is None


def test_read_has_no_more_than_it_asks_for_and_the_rest_stays(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        await answer(conn, await conn.read(2))
        await answer(conn, await conn.read(2))
        await answer(conn, await conn.read())

    serving = serve(Runs(function))
    sock = serving.connect()
    sock.sendall(b"abcdefg")
    assert serving.receive(sock, 15) == b"2:ab;2:cd;3:efg"


def test_separator_is_found_where_it_is_split_between_two_reads(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        await answer(conn, await conn.read_until(b"\r\n\r\n"))
        await answer(conn, await conn.read())

    serving = serve(Runs(function))
    sock = serving.connect()
    for part in (b"GET /\r\n", b"a: b\r", b"\n\r", b"\nbody"):
        sock.sendall(part)
        for _ in range(3):
            serving.step()
    assert serving.receive(sock, 25) == b"15:GET /\r\na: b\r\n\r\n;4:body"


def test_lines_end_with_the_stream_and_the_last_one_may_lack_its_end(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        async for line in conn.lines():
            handler.notes.append(line)

    handler = Runs(function)
    serving = serve(handler)
    sock = serving.connect()
    sock.sendall(b"one\n\ntwo\nthree")
    sock.shutdown(socket.SHUT_WR)
    assert handler.end(serving) is None
    assert handler.notes == [b"one\n", b"\n", b"two\n", b"three"]


def test_line_that_is_too_long_is_no_read_and_the_connection_stays_usable(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        try:
            await conn.read_until(b"\n", limit=4)
        except LimitExceeded as error:
            handler.notes.append(str(error))
        await answer(conn, await conn.read())

    handler = Runs(function)
    serving = serve(handler)
    sock = serving.connect()
    sock.sendall(b"12345\n")
    assert serving.receive(sock, 9) == b"6:12345\n;"
    assert handler.notes == ["no b'\\n' came within 4 bytes"]


@pytest.mark.parametrize("limit", [6, 7])
def test_limit_counts_the_separator(serve: Serve, limit: int) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        handler.notes.append(await conn.read_until(b"\r\n", limit=limit))

    handler = Runs(function)
    serving = serve(handler)
    sock = serving.connect()
    sock.sendall(b"12345\r\n")
    error = handler.end(serving)
    assert (type(error), handler.notes) == ((type(None), [b"12345\r\n"]) if limit == 7 else (LimitExceeded, []))


def test_stream_that_ends_too_early_is_the_clients_fault(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        await conn.read_exactly(10)

    handler = Runs(function)
    serving = serve(handler)
    sock = serving.connect()
    sock.sendall(b"abc")
    sock.shutdown(socket.SHUT_WR)
    error = handler.end(serving)
    assert isinstance(error, EndOfStream)
    assert error.partial == b"abc"
    assert serving.is_ended(sock)
    serving.step_until(lambda: serving.closes() == {"peer_eof": 1}, "the connection's end")
    assert serving.count("handler_error_handle") == 0


def test_read_that_takes_too_long_leaves_the_connection_usable(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        try:
            await conn.read_until(b"\n", timeout=0.02)
        except TimeoutError:
            await conn.write(b"421 timeout\n")
        await answer(conn, await conn.read_until(b"\n"))

    serving = serve(Runs(function))
    sock = serving.connect()
    sock.sendall(b"half")
    assert serving.receive(sock, 12) == b"421 timeout\n"
    sock.sendall(b" done\n")
    assert serving.receive(sock, 13) == b"10:half done\n"


def test_timeout_that_nobody_catches_is_the_clients_fault(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        await conn.read(timeout=0.01)

    serving = serve(Runs(function))
    sock = serving.connect()
    assert serving.is_ended(sock)
    serving.step_until(lambda: serving.closes() == {"deadline": 1}, "the connection's end")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda conn: conn.read(0), "cannot read 0 bytes; ask for 1 or more"),
        (lambda conn: conn.read_exactly(-1), "cannot read -1 bytes; ask for 1 or more"),
        (lambda conn: conn.read_until(b""), "separator=b'': must be bytes, one or more"),
        (lambda conn: conn.read_until("\n"), "separator='\\n': must be bytes, one or more"),
        (lambda conn: conn.read(timeout=float("inf")), "timeout=inf: must be a number of seconds; None waits for ever"),
        (lambda conn: conn.read(timeout=-1), "timeout=-1: must be a number of seconds; None waits for ever"),
        (lambda conn: conn.relay(conn), "a stream cannot be relayed to itself"),
        (lambda conn: conn.write("text"), "memoryview: a bytes-like object is required, not 'str'"),
        (lambda conn: conn.write(5), "memoryview: a bytes-like object is required, not 'int'"),
    ],
)
def test_wrong_arguments_are_refused(serve: Serve, call: Any, text: str) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        await call(conn)

    handler = Runs(function)
    serving = serve(handler)
    serving.connect()
    assert str(handler.end(serving)) == text


def test_two_reads_at_a_time_are_refused(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        async def other() -> None:
            try:
                await conn.read()
            except UsageError as error:
                handler.notes.append(str(error))

        async def first() -> None:
            await conn.read()

        handler.spawn(first())
        handler.spawn(other())
        await handler.sleep(0)

    handler = Runs(function)
    serving = serve(handler)
    serving.connect()
    assert handler.end(serving) is None
    assert handler.notes == ["a read of this connection waits already, or it is relayed, or begins TLS: one at a time"]


# -- writing ---------------------------------------------------------------------------------------------


def test_write_waits_while_the_client_takes_nothing(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        for _ in range(4):
            await conn.write(bytes(MANY))
            handler.notes.append(conn.conn.pending_write_bytes)

    handler = Runs(function)
    serving = serve(handler)
    sock = serving.connect()
    for _ in range(20):
        serving.step()
    assert handler.notes == []
    received = 0
    while received < 4 * MANY:
        received += len(serving.receive(sock, 65536))
    assert handler.end(serving) is None
    assert max(handler.notes) <= 65536


@pytest.mark.parametrize("data", [b"", bytearray(b"abc"), memoryview(b"abc")])
def test_all_kinds_of_bytes_are_written_as_they_were(serve: Serve, data: Any) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        mine = data
        wait = conn.write(mine)
        if isinstance(mine, bytearray):
            mine[:] = b"XYZ"
        await wait
        await conn.write(b"!")

    serving = serve(Runs(function))
    sock = serving.connect()
    expected = bytes(data).replace(b"XYZ", b"abc") + b"!"
    assert serving.receive(sock, len(expected)) == expected


def test_what_was_written_is_sent_although_the_coroutine_returns(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        await conn.write(b"1")
        await conn.write(b"2")

    serving = serve(Runs(function))
    sock = serving.connect()
    assert serving.receive(sock, 3) == b"12"


def test_end_of_the_stream_can_be_sent_before_the_last_read(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        await conn.write(b"bye")
        conn.shutdown_write()
        handler.notes.append(await conn.read())

    handler = Runs(function)
    serving = serve(handler)
    sock = serving.connect()
    assert serving.receive(sock, 4) == b"bye"
    sock.sendall(b"last words")
    assert handler.end(serving) is None
    assert handler.notes == [b"last words"]


# -- ends ------------------------------------------------------------------------------------------------


def test_reset_is_an_error_where_the_coroutine_waits(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        await conn.read()

    handler = Runs(function)
    serving = serve(handler)
    reset(serving.connect())
    assert isinstance(handler.end(serving), ConnectionResetError)
    assert serving.closes() == {"peer_reset": 1}
    assert serving.count("handler_error_handle") == 0


def test_reset_wakes_a_coroutine_that_does_not_read(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        await handler.sleep(100)

    handler = Runs(function)
    serving = serve(handler)
    reset(serving.connect())
    assert isinstance(handler.end(serving), ConnectionResetError)


def test_closed_connection_refuses_everything_with_the_error_that_ended_it(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        try:
            await conn.read()
        except ConnectionResetError:
            handler.notes.append(conn.closed)
        for call in (conn.read, lambda: conn.write(b"x"), lambda: conn.read_until(b"\n")):
            try:
                await call()
            except ConnectionResetError:
                handler.notes.append("refused")

    handler = Runs(function)
    serving = serve(handler)
    reset(serving.connect())
    assert handler.end(serving) is None
    assert handler.notes == [True, "refused", "refused", "refused"]


def test_forgotten_await_is_an_error_that_says_where(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        conn.write(b"forgotten")
        await conn.read()

    handler = Runs(function)
    serving = serve(handler)
    serving.connect()
    error = handler.end(serving)
    assert isinstance(error, ForgottenAwait)
    line = function.__code__.co_firstlineno + 1
    assert str(error) == f"an await was forgotten at {__file__}:{line}: nothing waits for what was called there"
    assert serving.count("handler_error_handle") == 1


def test_await_that_was_forgotten_last_is_an_error_too(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        conn.write(b"forgotten")

    handler = Runs(function)
    serving = serve(handler)
    serving.connect()
    handler.end(serving)
    assert serving.count("handler_error_handle") == 1


def test_stream_tells_what_its_connection_is(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        handler.notes += [conn.peer_address, conn.local_address, conn.tls, conn.closed, conn.arrival, repr(conn)]

    handler = Runs(function)
    serving = serve(handler)
    sock = serving.connect()
    assert handler.end(serving) is None
    assert handler.notes[:5] == [sock.getsockname(), sock.getpeername(), None, False, None]
    assert handler.notes[5].startswith("<Stream of <Conn ")


def test_refused_call_is_no_forgotten_await(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        await conn.read(1)
        for call in (lambda: conn.relay(conn), lambda: conn.read_until("\n"), lambda: conn.read(timeout=-1)):  # type: ignore[arg-type]
            try:
                await call()
            except (UsageError, ValueError):
                handler.notes.append("refused")
        await conn.write(b"fine")

    handler = Runs(function)
    serving = serve(handler)
    sock = serving.connect()
    sock.sendall(b"some")
    assert serving.receive(sock, 4) == b"fine"
    assert handler.end(serving) is None
    assert handler.notes == ["refused"] * 3


def test_read_that_was_forgotten_is_told_at_the_next_one(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        conn.read()
        await conn.read()

    handler = Runs(function)
    serving = serve(handler)
    serving.connect()
    assert isinstance(handler.end(serving), ForgottenAwait)


def test_end_of_one_connection_cancels_nobody_who_writes_to_it(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        handler.notes.append(conn)
        if len(handler.notes) == 1:
            await conn.read()
        await conn.read()
        for _ in range(2):
            try:
                await handler.notes[0].write(b"hi")
            except ConnectionError as error:
                handler.notes.append(str(error))
        await conn.write(b"alive")

    handler = Runs(function)
    serving = serve(handler)
    serving.connect()
    (first,) = serving.listener.clients()
    second = serving.connect()
    serving.listener.end(first, "admin", abort=True)
    handler.end(serving)
    second.sendall(b"go on")
    assert serving.receive(second, 5) == b"alive"
    assert ["admin" in text for text in handler.notes[2:]] == [True, True]
    assert serving.count("handler_error_handle") == 0
