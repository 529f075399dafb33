"""What a client that begins TLS says first: the server that it wants, and the protocols that it speaks.

The message is read, and not answered: whoever terminates TLS gets the same bytes. A ClientHello (RFC 8446, 4.1.2; RFC
5246, 7.4.1.2) may be cut into records at every byte (5.1). Values that nobody knows are to be ignored (GREASE, RFC
8701). With ECH there is the outer name, which is not the one that the client wants.
"""

from dataclasses import dataclass

HELLO_MAX_BYTES = 65_536
"""Of the message with its records. Browsers send 500 to 2,000: more than one key of a post-quantum kind is rare."""

RECORD_MAX_BYTES = 16_384
RECORD_HEADER_BYTES = 5
HANDSHAKE, CLIENT_HELLO = 22, 1
SERVER_NAME, ALPN = 0, 16
HOST_NAME = 0
NAME_MAX_BYTES = 255

METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"CONNECT ", b"OPTIONS ", b"TRACE ", b"PATCH ", b"PRI * ")


class NoHello(Exception):
    """What a client says first is no ClientHello.

    Attributes:
        cause: `http`: a request without TLS; `not_tls`: something else; `malformed`: it begins as one.
    """

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Hello:
    """What a client asks for."""

    server_name: str | None = None
    """In small letters, without a dot at its end; None: it names none."""
    alpn: tuple[str, ...] = ()
    """The protocols that it offers, those that it prefers first."""


class HelloReader:
    """Takes what comes, in pieces of any size.

    Attributes:
        data: all that has come. What follows the message is in it, too: it is the client's, and has to be passed on.
        asked: what the client asks for; None: that is not known yet.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.asked: Hello | None = None
        self._place = 0  # of the next record
        self._message = bytearray()

    def feed(self, data: bytes) -> Hello | None:
        """Take more; return what the client asks for once that is known.

        Raises:
            NoHello: it is something else.
        """
        self.data += data
        while True:
            if len(self._message) >= 4:
                end = 4 + int.from_bytes(self._message[1:4], "big")
                if self._message[0] != CLIENT_HELLO:
                    raise NoHello("malformed", f"the client begins with message {self._message[0]} of a handshake")
                if end > HELLO_MAX_BYTES:
                    raise NoHello("malformed", f"its ClientHello has {end} bytes, more than {HELLO_MAX_BYTES}")
                if len(self._message) >= end:
                    self.asked = hello_of(bytes(self._message[4:end]))
                    return self.asked
            if not self._take_record():
                return None

    def _take_record(self) -> bool:
        """Add what the next record has to the message, if all of it has come."""
        header = bytes(self.data[self._place : self._place + RECORD_HEADER_BYTES])
        if header[:1] not in (b"", bytes([HANDSHAKE])) or (header[1:2] not in (b"", b"\x03")):
            raise self._what_it_is()
        if len(header) < RECORD_HEADER_BYTES:
            return False
        size = int.from_bytes(header[3:5], "big")
        if not 0 < size <= RECORD_MAX_BYTES:
            raise NoHello("malformed", f"a record of its ClientHello has {size} bytes")
        start = self._place + RECORD_HEADER_BYTES
        if start + size > HELLO_MAX_BYTES:
            raise NoHello("malformed", f"its ClientHello has more than {HELLO_MAX_BYTES} bytes, with its records")
        if len(self.data) < start + size:
            return False
        self._message += self.data[start : start + size]
        self._place = start + size
        return True

    def _what_it_is(self) -> NoHello:
        if self._place:
            return NoHello("malformed", "its ClientHello is followed by something else before its end")
        begun = bytes(self.data[:8])
        if any(begun.startswith(method[: len(begun)]) for method in METHODS):
            return NoHello("http", "the client speaks HTTP without TLS")
        return NoHello("not_tls", "the client does not speak TLS")


class _Fields:
    """The fields of a message, one after the other; each that has a length says it first."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0

    def take(self, size: int) -> bytes:
        """Return the next bytes.

        Raises:
            NoHello: there are fewer.
        """
        start, self.place = self.place, self.place + size
        if self.place > len(self.data):
            raise NoHello("malformed", "its ClientHello ends amid a field")
        return self.data[start : self.place]

    def number(self, size: int) -> int:
        """Return a number of so many bytes."""
        return int.from_bytes(self.take(size), "big")

    def sized(self, size: int) -> "_Fields":
        """Return a field whose length has so many bytes."""
        return _Fields(self.take(self.number(size)))

    @property
    def is_over(self) -> bool:
        """Whether nothing more follows."""
        return self.place == len(self.data)


def hello_of(message: bytes) -> Hello:
    """Return what a ClientHello says, without its type and length.

    Raises:
        NoHello: it says nothing that can be understood.
    """
    fields = _Fields(message)
    fields.take(2 + 32)  # a version that is always the same, and random bytes
    fields.sized(1)  # the session
    fields.sized(2)  # suites
    fields.sized(1)  # compressions
    if fields.is_over:
        return Hello()  # TLS 1.2 without any extension
    extensions = fields.sized(2)
    if not fields.is_over:
        raise NoHello("malformed", "something follows the extensions of its ClientHello")
    found: dict[int, _Fields] = {}
    while not extensions.is_over:
        kind = extensions.number(2)
        body = extensions.sized(2)
        if kind in found:
            raise NoHello("malformed", f"its ClientHello has extension {kind} twice")
        found[kind] = body
    return Hello(_name_in(found.get(SERVER_NAME)), _protocols_in(found.get(ALPN)))


def _name_in(extension: _Fields | None) -> str | None:
    """Return the host of a server_name extension (RFC 6066, 3)."""
    if extension is None:
        return None
    names, name = extension.sized(2), None
    while not names.is_over:
        kind = names.number(1)
        text = names.sized(2).data
        if kind != HOST_NAME:
            continue  # there is none yet
        if name is not None or len(text) > NAME_MAX_BYTES:
            raise NoHello("malformed", "its ClientHello names several servers, or one by too long a name")
        name = text.decode("latin-1").lower().removesuffix(".")
        if not name or not (name.isascii() and name.isprintable()) or " " in name:
            raise NoHello("malformed", "its ClientHello names a server by what is no name")
    return name


def _protocols_in(extension: _Fields | None) -> tuple[str, ...]:
    """Return the protocols of an ALPN extension (RFC 7301, 3.1); those that are no text cannot be in an option."""
    if extension is None:
        return ()
    names, found = extension.sized(2), []
    while not names.is_over:
        name = names.sized(1).data
        if not name:
            raise NoHello("malformed", "its ClientHello offers a protocol without a name")
        found.append(name.decode("latin-1"))
    return tuple(found)
