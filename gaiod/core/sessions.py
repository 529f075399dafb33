"""TLS sessions by the standard library: `ssl.SSLObject`, and memory between it and the sockets.

`_sessions.pyx` is the same interface for the compiled engine. A session makes the system calls of its connection: it
receives and decrypts, encrypts and sends. Each call says how many plain bytes it moved, or `-errno`, and never raises
for what the network or the peer did; attributes say the rest.
"""

import errno
import os
import ssl
from collections import deque
from collections.abc import Sequence
from typing import Any

from gaiod.core.clients import Client
from gaiod.core.contexts import Contexts
from gaiod.core.tls import AHEAD_BYTES, RECORD_BYTES, ClientTls, ServerTls, TlsFacts, is_numeric
from gaiod.core.verdicts import refusal_of, verdict_of

RECEIVE_MAX = 256 * 1024
"""Most bytes that one call receives: a connection's share of a pass."""

RECEIVE_MIN = RECORD_BYTES + 512
"""Fewest bytes that one call asks for: a record, whatever room there is for what is in it."""

SEND_MAX = 256 * 1024
"""Most plain bytes that one call sends."""

REASONS = {
    "HTTP_REQUEST": "http",
    "HTTPS_PROXY_REQUEST": "http",
    "UNSUPPORTED_PROTOCOL": "version",
    "VERSION_TOO_LOW": "version",
    "NO_SHARED_CIPHER": "no_shared_cipher",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "no_shared_cipher",
    "NO_SUITABLE_KEY_SHARE": "no_shared_cipher",
    "CALLBACK_FAILED": "unknown_name",
    "NO_APPLICATION_PROTOCOL": "alpn",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "client_certificate",
    "CERTIFICATE_VERIFY_FAILED": "client_certificate",
}
"""What OpenSSL calls the commonest failures (SSL_R_ in sslerr.h), as `tls.FAILURES` does. Others: `reason_of`."""

WORDS = {
    "CALLBACK_FAILED": "no certificate is for the server that it names",
    "HTTP_REQUEST": "the client speaks HTTP without TLS",
    "HTTPS_PROXY_REQUEST": "the client takes this for an HTTP proxy, and speaks without TLS",
    "NO_APPLICATION_PROTOCOL": "it offers none of the protocols of alpn",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client shows no certificate",
}
"""Where OpenSSL's own words say nothing to an operator."""

UNKNOWN_AUTHORITY = "its authority is none of clients.ca"

VERDICTS = {
    2: UNKNOWN_AUTHORITY,
    3: "clients.crl has no list of its authority",
    9: "it, or one of its chain, has not begun",
    10: "it, or one of its chain, has ended",
    12: "the list of its authority in clients.crl has ended",
    18: UNKNOWN_AUTHORITY,
    19: UNKNOWN_AUTHORITY,
    20: UNKNOWN_AUTHORITY,
    21: UNKNOWN_AUTHORITY,
    22: "its chain is too long",
    23: "it, or one of its chain, is revoked",
    26: "it is not for clients",
}
"""What OpenSSL finds wrong with a certificate (X509_V_ERR_ in x509_vfy.h), for people. Of others, its own words."""

ALERT, HANDSHAKE, MAJOR = 21, 22, 3
"""How the first record of a peer begins: one of two types, and what all versions since 1996 have in common."""


def speaks_tls(opening: bytes) -> bool:
    """Tell whether a peer whose stream begins with these bytes speaks TLS; none: it has said nothing else.

    OpenSSL names what it stumbles over, which is chance where somebody speaks another protocol: the third to fifth
    byte may be taken for a length.
    """
    return not opening or (opening[0] in (ALERT, HANDSHAKE) and opening[1:2] in (b"", bytes([MAJOR])))


def reason_of(name: str, opening: bytes) -> str:
    """Return which of `tls.FAILURES` it is that OpenSSL calls so; `opening`: the peer's first bytes, two at most."""
    reason = REASONS.get(name, "alert" if "ALERT" in name else "protocol")
    return "not_tls" if reason == "protocol" and not speaks_tls(opening) else reason


def words_of(name: str, opening: bytes, verdict: int = 0, verdict_words: str = "") -> str:
    """Return what OpenSSL calls so, for people; `verdict`: what it has found wrong with a certificate, 0: nothing."""
    if verdict and name == "CERTIFICATE_VERIFY_FAILED":
        return f"the client's certificate is refused: {VERDICTS.get(verdict, verdict_words)}"
    if reason_of(name, opening) == "not_tls":
        return "it does not speak TLS"
    return WORDS.get(name, name.lower().replace("_", " "))


def why(name: str, opening: bytes, verdict: tuple[int, str], wanted: str, evidence: bytes | None) -> tuple[str, str]:
    """Return why TLS with a server has failed: the reason, of `tls.FAILURES` or `tls.SERVER_FAILURES`, and words.

    Args:
        name: what OpenSSL calls it.
        opening: as for `reason_of`.
        verdict: OpenSSL's code for what is wrong with its certificate, 0: nothing; and its words for that.
        wanted: the name that the certificate was to have.
        evidence: that certificate, in DER; None: it is not known.
    """
    if name == "CERTIFICATE_VERIFY_FAILED":
        return verdict_of(*verdict, wanted, evidence)
    return refusal_of(name) or (reason_of(name, opening), words_of(name, opening))


class TlsContext:
    """What sessions are made from: a server's, or a client's with one server."""

    def __init__(self, contexts: Contexts | Client) -> None:
        self.is_client = isinstance(contexts, Client)
        self._contexts = contexts

    def session(self, preface: bytes = b"") -> "Session":
        """Return the session of a new connection, as its server or its client; it first sends `preface`, as it is."""
        return Session(self._contexts, preface)

    def set_ticket_keys(self, keys: Sequence[bytes]) -> None:
        """Do nothing: the standard library has a key of its own, and takes no other."""

    def renew(self, options: ServerTls) -> None:
        """Show a server's clients other certificates from now on, as many as before.

        Sessions go on with what they have begun with. Those that come can be resumed as before by whoever has the keys
        of tickets.

        Args:
            options: they differ from those that it was made of in what the certificates are, and in nothing else.

        Raises:
            ssl.SSLError, ValueError: a certificate or a key is none, or they are no pair. Nothing has changed.
        """
        assert isinstance(self._contexts, Contexts)
        self._contexts.renew(options)


def shares_tickets() -> bool:
    """As `engine.shares_tickets`."""
    return False


def tls_library() -> tuple[str, str]:
    """As `engine.tls_library`."""
    return ssl.OPENSSL_VERSION, "python"


def open_tls(options: ServerTls | ClientTls) -> TlsContext:
    """As `engine.open_tls`."""
    return TlsContext(Client(options) if isinstance(options, ClientTls) else Contexts(options))


class Session:
    """TLS with one peer.

    Attributes:
        is_open: the handshake is done.
        is_truncated: the stream has ended without the peer's close_notify.
        drained: 1 if the last receive got less than it asked for, 2 if the kernel said that there is no more; 0: there
            may be more, in the kernel's queue or in here.
        held: bytes that were encrypted, and the kernel has not taken.
        held_plain: of the bytes given to `send`, those that are in records which the kernel has not taken whole.
    """

    def __init__(self, contexts: Contexts | Client, preface: bytes = b"") -> None:
        self.is_open = self.is_truncated = False
        self.drained = self.held_plain = 0
        self.held = len(preface)
        self.failure = self.message = ""
        self._accepts_truncation = contexts.accepts_truncation
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object: Any = contexts.wrap(self._incoming, self._outgoing)
        self._facts: TlsFacts | None = None
        self._client = contexts if isinstance(contexts, Client) else None
        self._has_greeted = self._client is None  # a client begins
        self._wants_ticket = self._client is not None
        self._opening = b""  # the first bytes of the peer, two at most
        self._has_ended = False  # its close_notify has come
        self._has_shut = False  # ours was made
        self._plain = b""  # what was decrypted before it was asked for
        self._rest = bytearray(preface)  # `held` bytes
        self._records: deque[list[int]] = deque()  # of each piece of it: bytes, plain bytes that are counted
        if preface:
            self._records.append([len(preface), 0])

    def handshake(self, fd: int) -> int:
        """Take one step: 1, the handshake is done; 0, it goes on when more comes, or more is taken; `-errno`."""
        self.drained = 0
        error = self.flush(fd)
        if error == -errno.EAGAIN:
            self.drained = 2  # whatever comes is of no use before the kernel takes more
            return 0
        if error:
            return self._lose("reset", error)
        if self._has_greeted:
            data = self._receive(fd, RECEIVE_MIN)
            if type(data) is int:
                return 0 if self.drained == 2 else self._lose("reset", data)
            if not data:
                self._fail("closed", "the peer closed the connection amid the handshake")
                return -errno.ECONNRESET
        try:
            self._object.do_handshake()
            self.is_open = True
            self._note_facts()
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLError, ValueError) as failure:
            self._note_failure(failure)
        self._has_greeted = True
        if self.is_open:
            self.drained = 0  # what came behind the handshake is in here
        self._collect(0)
        error = self.flush(fd)
        if self.failure:
            return -errno.EPROTO
        if error not in (0, -errno.EAGAIN):
            return self._lose("reset", error)
        return int(self.is_open)

    def receive(self, fd: int, memory: Any) -> int:
        """Receive, and decrypt into `memory`, a memoryview: return the bytes, 0 at the end of the stream, `-errno`.

        -EAGAIN: what came was a part of a record, or no data; `drained` says whether there is more. What there is no
        room for stays in here.
        """
        self.drained = 0
        filled = self._decrypt(memory)
        if filled:
            return filled
        if self.failure:
            self._collect(0)
            self.flush(fd)
            return -errno.EPROTO
        if self._has_ended:
            return 0
        data = self._receive(fd, min(max(len(memory) + 512, RECEIVE_MIN), RECEIVE_MAX))
        if type(data) is int:
            return data
        if not data:
            self.is_truncated = not self._accepts_truncation
            return -errno.ECONNRESET if self.is_truncated else 0
        filled = self._decrypt(memory)
        if self._wants_ticket and self._client is not None:
            self._wants_ticket = not self._client.keep_ticket(self._object)
        self._collect(0)
        if self.held:
            self.flush(fd)  # what fails here fails again
        if filled == len(memory) or self._has_ended or self.failure:
            self.drained = 0
        if filled:
            return filled
        if self.failure:
            return -errno.EPROTO
        return 0 if self._has_ended else -errno.EAGAIN

    def send(self, fd: int, data: Any, offset: int, size: int) -> int:
        """Encrypt and send some of `data[offset:offset + size]`, whose first `held_plain` bytes are encrypted already.

        Returns:
            How many of them the kernel has now, with all of their records; `-errno`.
        """
        view = memoryview(data)[offset : offset + size]
        before = self.held_plain
        place = before
        error = self._may_send() or self.flush(fd)
        while not error and place < len(view):
            step = view[place : place + AHEAD_BYTES]
            self._encrypt(step)
            place += len(step)
            error = self.flush(fd)
        if error not in (0, -errno.EAGAIN):
            self._forget()
            return error
        sent = place - self.held_plain
        return sent if sent or not error else error

    def take(self, fd: int, pieces: Sequence[Any]) -> int:
        """Encrypt and send as many bytes as the kernel takes, and at most `AHEAD_BYTES` more: those are `held`.

        Returns:
            How many bytes of `pieces` were taken; they are counted nowhere else. `-errno`: none.
        """
        taken = 0
        error = self._may_send() or self.flush(fd)
        for piece in pieces:
            view = memoryview(piece)
            place = 0
            while not error and place < len(view):
                step = view[place : place + AHEAD_BYTES]
                self._encrypt(step, counted=False)
                place += len(step)
                error = self.flush(fd)
            taken += place
            if error:
                break
        if error not in (0, -errno.EAGAIN):
            self._forget()
            return error
        return taken if taken or not error else error

    def flush(self, fd: int) -> int:
        """Send what is held: 0, all of it went; `-errno`."""
        while self.held:
            try:
                sent = os.write(fd, self._rest)
            except InterruptedError:
                continue
            except OSError as error:
                return -(error.errno or errno.EIO)
            del self._rest[:sent]
            self.held -= sent
            while sent and sent >= self._records[0][0]:
                size, plain = self._records.popleft()
                sent -= size
                self.held_plain -= plain
            if sent:
                self._records[0][0] -= sent
        return 0

    def shutdown(self) -> None:
        """Make the close_notify, once; `flush` sends it."""
        if self._has_shut or not self.is_open or self.failure:
            return
        self._has_shut = True
        plain = bytearray()
        # What has come is decrypted first: the object's own shutdown reads, and takes data for a mistake.
        room = memoryview(bytearray(RECEIVE_MAX))
        while size := self._decrypt(room):
            plain += room[:size]
        self._plain = bytes(plain)
        try:
            self._object.unwrap()
        except (ssl.SSLError, OSError):
            pass  # it wants the peer's, which nobody waits for
        self._collect(0)

    def disown(self) -> int:
        """Return `held_plain`, and count none of it any more: the write that it was for is over."""
        disowned, self.held_plain = self.held_plain, 0
        for record in self._records:
            record[1] = 0
        return disowned

    def facts(self) -> TlsFacts | None:
        """Return what was agreed; None: the handshake is not done."""
        return self._facts

    def reason(self) -> str:
        """Return why it moves nothing any more, one of `tls.FAILURES`; "": it does."""
        return self.failure

    def words(self) -> str:
        """Return more of that, for people."""
        return self.message

    def close(self) -> None:
        """Forget what is held, and all secrets."""
        self._forget()
        self._object = self._incoming = self._outgoing = None  # type: ignore[assignment]
        self._plain = b""
        self.failure = self.failure or "closed"

    # -- its parts ---------------------------------------------------------------------------------------

    def _note_facts(self) -> None:
        suite, _, _ = self._object.cipher()
        version = self._object.version().removeprefix("TLSv")
        name = getattr(self._object, "requested_name", None)
        if self._client is not None and not is_numeric(self._client.name):
            name = self._client.name or None
        alpn = self._object.selected_alpn_protocol()
        shown = self._object.getpeercert(True)
        self._facts = TlsFacts(
            version,
            suite,
            alpn,
            name,
            bool(self._object.session_reused),
            shown,
            is_verified=shown is not None and (self._client is None or self._client.verifies),
        )

    def _receive(self, fd: int, wanted: int) -> bytes | int:
        """Receive, and let the object have it; return it, or `-errno`."""
        try:
            data = os.read(fd, wanted)
        except OSError as error:
            self.drained = 2 if error.errno == errno.EAGAIN else 0
            return -(error.errno or errno.EIO)
        self.drained = int(len(data) < wanted)
        if data:
            self._opening = (self._opening + data[:2])[:2]
            self._incoming.write(data)
        return data

    def _decrypt(self, memory: Any) -> int:
        """Decrypt what is there, as far as there is room, and return how many bytes that were."""
        filled = min(len(memory), len(self._plain))
        if filled:
            memory[:filled] = self._plain[:filled]
            self._plain = self._plain[filled:]
        while filled < len(memory) and not self._has_ended and not self.failure:
            try:
                size = self._object.read(len(memory) - filled, memory[filled:])
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:  # the peer's close_notify, if ours was made before
                size = 0
            except ssl.SSLError as failure:
                self._note_failure(failure)
                break
            if size == 0:
                self._has_ended = True
            filled += size
        return filled

    def _encrypt(self, data: Any, *, counted: bool = True) -> None:
        """Make records of some bytes."""
        for start in range(0, len(data), RECORD_BYTES):
            piece = data[start : start + RECORD_BYTES]
            self._object.write(piece)
            self._collect(len(piece) if counted else 0)

    def _collect(self, plain: int) -> None:
        """Hold what the object has made."""
        size = self._outgoing.pending
        if size:
            self._rest += self._outgoing.read()
            self._records.append([size, plain])
            self.held += size
            self.held_plain += plain

    def _may_send(self) -> int:
        """Return 0, or why nothing can be sent any more: `-errno`."""
        if self._has_shut:
            return -errno.EPIPE
        return -errno.EPROTO if self.failure else 0

    def _forget(self) -> None:
        """Forget what is held: nobody gets it any more."""
        self._rest.clear()
        self._records.clear()
        self.held = self.held_plain = 0

    def _note_failure(self, error: Exception) -> None:
        name = getattr(error, "reason", None) or "UNKNOWN"
        verdict = getattr(error, "verify_code", 0), getattr(error, "verify_message", "")
        if self._client is not None:
            self._fail(*why(name, self._opening, verdict, self._client.name, None))
            return
        self._fail(reason_of(name, self._opening), words_of(name, self._opening, *verdict))

    def _fail(self, reason: str, message: str) -> None:
        self.failure = reason
        self.message = message

    def _lose(self, reason: str, error: int) -> int:
        """Take note that the network failed amid the handshake; return `error`."""
        self._fail(reason, os.strerror(-error))
        return error
