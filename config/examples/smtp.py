"""smtp: take mail, and throw it away: for tests of what sends mail. With STARTTLS (RFC 3207)."""

from dataclasses import dataclass

from gaiod import Conn, Handler, OpResult, Size

LINE_MAX_BYTES = 1024
END_OF_LINE, END_OF_MAIL = b"\r\n", b"\r\n.\r\n"
"""Nothing else ends them: who takes a line feed alone for an end lets mail be smuggled into mail (CVE-2023-51764)."""


@dataclass
class Options:
    """The keys of `with:`."""

    hostname: str = "localhost"
    require_tls: bool = True
    """Mail is taken only from clients that speak TLS."""
    message_max: Size = 10_485_760


@dataclass
class Session:
    """How far a client is."""

    said: bytes = b""
    """What it has said and got no answer to."""
    has_sender: bool = False
    recipients: int = 0
    mail_bytes: int | None = None
    """Of the mail that it is sending; None: it gives commands."""
    last: str = ""
    """The command that was answered last."""


class Smtp(Handler):
    """One answer at a time: the next command is looked at when the answer to the one before is sent."""

    Options = Options

    def on_start(self) -> None:
        if self.options.require_tls and not self.offers_tls:
            raise ValueError("the listener has no tls: {start: handler, ...}; add it, or write require_tls: false")

    def on_open(self, conn: Conn) -> None:
        conn.data = Session()
        self._answer(conn, f"220 {self.options.hostname} ESMTP")

    def on_read(self, conn: Conn, result: OpResult) -> None:
        conn.data.said += bytes(result.buffer)
        self._go_on(conn)

    def on_write(self, conn: Conn, result: OpResult) -> None:
        session = conn.data
        if session.last == "STARTTLS":
            conn.start_tls(server=True, unread=session.said)
        elif session.last != "QUIT":
            self._go_on(conn)

    def on_tls(self, conn: Conn) -> None:
        conn.data = Session()  # what was said before counts for nothing
        self._go_on(conn)

    def phase_of(self, conn: Conn) -> str:
        return "command" if conn.data.mail_bytes is None else "mail"

    def _go_on(self, conn: Conn) -> None:
        """Answer the next thing that the client has said whole, or read more of it."""
        session: Session = conn.data
        if session.mail_bytes is not None:
            self._take_mail(conn, session)
            return
        line, end, rest = session.said.partition(END_OF_LINE)
        if end:
            session.said = rest
            words = line.decode("ascii", "replace").split()
            session.last = words[0].upper() if words else ""
            self._answer(conn, self._command(conn, session, words[1:]))
            if session.last == "QUIT":
                conn.close()  # once that is sent
        elif len(session.said) > LINE_MAX_BYTES:
            session.last = "QUIT"
            self._answer(conn, "500 5.5.2 The line is too long")
            conn.close()
        else:
            conn.read()

    def _take_mail(self, conn: Conn, session: Session) -> None:
        """Count what has come of a mail, and keep of it only what may be the begin of its end."""
        assert session.mail_bytes is not None
        mail, end, rest = session.said.partition(END_OF_MAIL)
        if not end:
            kept = len(END_OF_MAIL) - 1
            session.mail_bytes += max(0, len(session.said) - kept)
            session.said = session.said[-kept:]
            conn.read()
            return
        size = session.mail_bytes + len(mail)
        conn.data = Session(rest)
        is_large = size > self.options.message_max
        self._answer(conn, "552 5.3.4 The mail is too large" if is_large else f"250 2.0.0 {size} bytes thrown away")

    def _command(self, conn: Conn, session: Session, words: list[str]) -> str:
        """Return the answer to a command."""
        if session.last in ("MAIL", "RCPT", "DATA") and self.options.require_tls and conn.tls is None:
            return "530 5.7.0 Must issue a STARTTLS command first"
        match session.last:
            case "EHLO":
                return "\r\n".join(self._extensions(conn))
            case "STARTTLS" if self.offers_tls and conn.tls is None and not words:
                return "220 2.0.0 Ready to start TLS"
            case "MAIL" if not session.has_sender:
                session.has_sender = True
            case "RCPT" if session.has_sender:
                session.recipients += 1
            case "DATA" if session.recipients:
                session.mail_bytes = 0
                session.said = END_OF_LINE + session.said  # a mail may be empty, and end at once
                return "354 End with a line that has a dot alone"
            case "MAIL" | "RCPT" | "DATA" | "STARTTLS":
                session.last = ""
                return "503 5.5.1 Not now"
            case "RSET":
                conn.data = Session(session.said)
            case "HELO" | "NOOP":
                pass
            case "QUIT":
                return "221 2.0.0 Bye"
            case _:
                return "500 5.5.1 No such command"
        return "250 2.0.0 Ok"

    def _extensions(self, conn: Conn) -> list[str]:
        known = [self.options.hostname, f"SIZE {self.options.message_max}"]
        if self.offers_tls and conn.tls is None:
            known.append("STARTTLS")
        return [f"250-{name}" for name in known[:-1]] + [f"250 {known[-1]}"]

    def _answer(self, conn: Conn, text: str) -> None:
        conn.write(text.encode() + END_OF_LINE)
