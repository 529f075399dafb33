"""ClientHellos: cut into records and pieces at every byte, with values that nobody knows, and what is none."""

import itertools
import random
import ssl
from collections.abc import Sequence

import pytest
from gaiod.handlers.proxy.client_hello import HELLO_MAX_BYTES, Hello, HelloReader, NoHello
from worker.support.hellos import GREASE, extension, message, names, protocols, records


def real(name: str | None, alpn: Sequence[str] = ()) -> bytes:
    """Return what OpenSSL says."""
    context = ssl.create_default_context()
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(list(alpn))
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def read(data: bytes) -> Hello | None:
    reader = HelloReader()
    found = reader.feed(data)
    assert bytes(reader.data) == data
    assert reader.asked == found
    return found


FULL = message(extension(GREASE, b""), protocols(b"\x0a\x0a", b"h2", b"http/1.1"), names(b"App.Example.org"))
WANTED = Hello("app.example.org", ("\x0a\x0a", "h2", "http/1.1"))


def test_what_openssl_says_is_understood() -> None:
    assert read(real("App.example.org", ["h2", "http/1.1"])) == Hello("app.example.org", ("h2", "http/1.1"))
    assert read(real(None)) == Hello()


@pytest.mark.parametrize(
    ("extensions", "hello"),
    [
        ((), Hello()),
        ((extension(GREASE, b"any"),), Hello()),
        ((names(b"a.example.org."),), Hello("a.example.org")),
        ((names(b"xn--bcher-kva.example"),), Hello("xn--bcher-kva.example")),
        ((names(b"whatever", kind=7),), Hello()),
        ((protocols(b"h2"), names(b"a")), Hello("a", ("h2",))),
    ],
)
def test_what_is_missing_or_unknown_is_ignored(extensions: tuple[bytes, ...], hello: Hello) -> None:
    assert read(records(message(*extensions))) == hello


def test_it_is_read_in_pieces_of_any_size_and_what_follows_is_kept() -> None:
    data = records(FULL) + b"early"
    for cut in range(1, len(data) - len(b"early")):
        reader = HelloReader()
        assert reader.feed(data[:cut]) is None
        assert reader.feed(data[cut:]) == WANTED
        assert bytes(reader.data) == data
    reader = HelloReader()
    assert [found for byte in data[: -len(b"early")] if (found := reader.feed(bytes([byte])))] == [WANTED]


def test_it_is_read_from_several_records_cut_at_every_byte() -> None:
    for cut in range(1, len(FULL)):
        assert read(records(FULL, [cut])) == WANTED
    data = records(FULL, [1] * len(FULL))
    reader = HelloReader()
    assert [found for byte in data if (found := reader.feed(bytes([byte])))] == [WANTED]


def test_the_longest_has_64_kib_with_its_records() -> None:
    def padded(size: int) -> bytes:
        parts = [extension(40_000 + number, bytes(16_000)) for number in range(3)]
        room = size - 4 * 5 - len(message(*parts, extension(21, b""), names(b"a")))  # it takes four records
        return records(message(*parts, extension(21, bytes(room)), names(b"a")), [16_384] * 3)

    longest = padded(HELLO_MAX_BYTES)
    assert len(longest) == HELLO_MAX_BYTES
    assert read(longest) == Hello("a")
    with pytest.raises(NoHello, match="more than 65536 bytes"):
        HelloReader().feed(padded(HELLO_MAX_BYTES + 1))


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"GET / HTTP/1.1\r\n", "http"),
        (b"PRI * HTTP/2.0\r\n", "http"),
        (b"CONNECT a:1 HTTP/1.1\r\n", "http"),
        (b"SSH-2.0-OpenSSH\r\n", "not_tls"),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", "not_tls"),  # PostgreSQL's SSLRequest
        (b"\x80\x2e\x01\x03\x01", "not_tls"),  # a ClientHello of SSL 2
        (b"\x16\x02\0\0\0", "not_tls"),
        (b"\x15\x03\x01\x00\x02\x02\x28", "not_tls"),
        (b"\x16\x03\x01\x00\x00", "malformed"),
        (b"\x16\x03\x01\x40\x01", "malformed"),
        (records(message(kind=2)), "malformed"),
        (b"\x16\x03\x01\x00\x04\x01\x01\x00\x00", "malformed"),  # 64 KiB are announced
        (records(FULL, [10])[:15] + b"\x17\x03\x03\x00\x01x", "malformed"),
        (records(b"\x01\x00\x00\x02\x03\x03"), "malformed"),
        (records(message(names(b"a"), names(b"a"))), "malformed"),
        (records(message(names(b"a", b"b"))), "malformed"),
        (records(message(names(b""))), "malformed"),
        (records(message(names(b"."))), "malformed"),
        (records(message(names(b"a b"))), "malformed"),
        (records(message(names(b"a\0b"))), "malformed"),
        (records(message(names(b"\xe4.org"))), "malformed"),
        (records(message(names(b"a" * 256))), "malformed"),
        (records(message(protocols(b""))), "malformed"),
        (records(message(extension(0, b"\x00\x09\x00"))), "malformed"),
        (records(message(names(b"a"), after=b"more")), "malformed"),
    ],
)
def test_what_is_none_is_refused(data: bytes, cause: str) -> None:
    with pytest.raises(NoHello) as refused:
        HelloReader().feed(data)
    assert refused.value.cause == cause


def outcome(data: bytes, cuts: Sequence[int]) -> tuple[Hello | None, str]:
    """Return what comes of some bytes, given in pieces."""
    reader = HelloReader()
    places = [0, *sorted(cuts), len(data)]
    try:
        for start, end in itertools.pairwise(places):
            found = reader.feed(data[start:end])
            if found is not None:
                return found, ""
    except NoHello as error:
        return None, error.cause
    return None, ""


def drawn(dice: random.Random) -> tuple[bytes, Hello]:
    """Draw a ClientHello, and what it asks for."""
    name = dice.choice([None, "a.example.org", "x" * dice.randrange(1, 250)])
    alpn = tuple(dice.sample(["h2", "http/1.1", "postgresql", "*"], dice.randrange(4)))
    kinds = dice.sample(range(100, 60_000), dice.randrange(6))
    parts = [extension(kind, dice.randbytes(dice.randrange(300))) for kind in kinds]
    parts += [names(name.encode())] if name is not None else []
    parts += [protocols(*(text.encode() for text in alpn))] if alpn else []
    dice.shuffle(parts)
    return message(*parts), Hello(name, alpn)


@pytest.mark.parametrize("seed", range(20))
def test_any_cut_is_understood_alike_and_no_bytes_do_harm(seed: int) -> None:
    """200 messages each: whole, cut anywhere, and with some bytes changed, lost or added."""
    dice = random.Random(seed)
    for _ in range(200):
        plain, wanted = drawn(dice)
        data = records(plain, [dice.randrange(1, 200) for _ in range(dice.randrange(5))])
        cuts = [dice.randrange(len(data)) for _ in range(dice.randrange(6))]
        assert outcome(data, cuts) == (wanted, "")
        assert outcome(data[: dice.randrange(len(data))], cuts) == (None, "")
        broken = bytearray(data)
        for _ in range(dice.randrange(1, 4)):
            place = dice.randrange(len(broken))
            match dice.randrange(3):
                case 0:
                    broken[place] = dice.randrange(256)
                case 1:
                    del broken[place : place + dice.randrange(1, 5)]
                case _:
                    broken[place:place] = dice.randbytes(3)
        cuts = [dice.randrange(len(broken) + 1) for _ in range(dice.randrange(6))]
        whole = outcome(bytes(broken), [])
        in_pieces = outcome(bytes(broken), cuts)
        assert in_pieces[0] == whole[0]
        assert in_pieces[1] == whole[1] or {in_pieces[1], whole[1]} == {"http", "not_tls"}
