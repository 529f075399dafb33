"""The handler of config/examples that takes mail and throws it away: its steps, without sockets."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gaiod import Handler
from gaiod.plugins import build_options, load_handler
from gaiod.testing import Arrived, Close, Closed, Opened, Read, Secured, Sent, Started, StartTls, Write, assert_script

SMTP = load_handler(str(Path(__file__).parents[2] / "config" / "examples" / "smtp.py"))

OPENED = ((Opened(), [Write(b"220 localhost ESMTP\r\n")]), (Sent(), [Read()]))


def handler(**values: Any) -> Handler:
    return SMTP(build_options(SMTP, values))


def said(command: str, *answers: str) -> Sequence[Any]:
    """Return the steps of a command and its answer."""
    return (
        (Arrived(command.encode() + b"\r\n"), [Write("\r\n".join(answers).encode() + b"\r\n")]),
        (Sent(), [Read()]),
    )


BEGUN = (
    *OPENED,
    (Arrived(b"STARTTLS\r\n"), [Write(b"220 2.0.0 Ready to start TLS\r\n")]), (Sent(), [StartTls()]),
    (Secured(), [Read()]),
)  # fmt: skip
OK = "250 2.0.0 Ok"
MAIL = (*said("MAIL FROM:<a@example.org>", OK), *said("RCPT TO:<b@example.org>", OK))
DATA = said("DATA", "354 End with a line that has a dot alone")


def test_mail_is_taken_once_tls_has_begun() -> None:
    assert_script(
        handler(), *OPENED, *said("EHLO me", "250-localhost", "250-SIZE 10485760", "250 STARTTLS"),
        *BEGUN[len(OPENED):], *said("EHLO me", "250-localhost", "250 SIZE 10485760"), *MAIL, *DATA,
        *said("Subject: x\r\n\r\nhello\r\n.", "250 2.0.0 21 bytes thrown away"),
        (Arrived(b"QUIT\r\n"), [Write(b"221 2.0.0 Bye\r\n"), Close()]), (Sent(), []),
    )  # fmt: skip


@pytest.mark.parametrize("command", ["MAIL FROM:<a@example.org>", "RCPT TO:<b@example.org>", "DATA"])
def test_mail_before_tls_is_refused_unless_it_may_come(command: str) -> None:
    assert_script(handler(), *OPENED, *said(command, "530 5.7.0 Must issue a STARTTLS command first"))
    assert_script(handler(require_tls=False), *OPENED, *MAIL, *DATA, offers_tls=False)


def test_what_came_behind_starttls_is_told_and_closes_the_connection() -> None:
    go_on = [Write(b"220 2.0.0 Ready to start TLS\r\n")]
    assert_script(
        handler(), *OPENED, (Arrived(b"STARTTLS\r\nMAIL FROM:<a@example.org>\r\n"), go_on),
        (Sent(), [StartTls(unread=b"MAIL FROM:<a@example.org>\r\n")]), (Closed("tls_error"), []),
    )  # fmt: skip


def test_tls_begins_once_and_without_arguments() -> None:
    assert_script(handler(), *BEGUN, *said("STARTTLS", "503 5.5.1 Not now"))
    assert_script(handler(), *OPENED, *said("STARTTLS now", "503 5.5.1 Not now"))


def test_what_was_said_before_tls_counts_for_nothing() -> None:
    assert_script(
        handler(require_tls=False), *OPENED, *MAIL, *BEGUN[len(OPENED):], *said("DATA", "503 5.5.1 Not now")
    )  # fmt: skip


def test_commands_that_come_together_are_answered_one_by_one() -> None:
    assert_script(
        handler(), *BEGUN, (Arrived(b"NOOP\r\nRSET\r\nNO"), [Write(b"250 2.0.0 Ok\r\n")]),
        (Sent(), [Write(b"250 2.0.0 Ok\r\n")]), (Sent(), [Read()]), *said("OP", OK),
    )  # fmt: skip


def test_mail_ends_with_a_dot_between_two_whole_line_ends_only() -> None:
    assert_script(
        handler(), *BEGUN, *MAIL, *DATA, (Arrived(b"a\n.\nQUIT\r\nb\r.\rc\r\n.\n"), [Read()]),
        (Arrived(b"x" * 10_000), [Read()]), (Arrived(b"\r"), [Read()]), (Arrived(b"\n.\r"), [Read()]),
        (Arrived(b"\nNOOP\r\n"), [Write(b"250 2.0.0 10021 bytes thrown away\r\n")]),
        (Sent(), [Write(b"250 2.0.0 Ok\r\n")]),
    )  # fmt: skip


def test_mail_may_be_empty_and_may_be_too_large() -> None:
    assert_script(handler(), *BEGUN, *MAIL, *DATA, *said(".", "250 2.0.0 0 bytes thrown away"))
    small = handler(message_max=1000)
    conn = assert_script(
        small, *BEGUN, *MAIL, *DATA, (Arrived(bytes(1_000_000)), [Read()]),
        *said("\r\n.", "552 5.3.4 The mail is too large"),
    )  # fmt: skip
    assert conn.data.said == b"", "nothing of it is kept"


def test_line_that_does_not_end_closes_the_connection() -> None:
    assert_script(
        handler(), *OPENED, (Arrived(bytes(1025)), [Write(b"500 5.5.2 The line is too long\r\n"), Close()]),
        (Sent(), []),
    )  # fmt: skip
    assert_script(handler(), *OPENED, *said("", "500 5.5.1 No such command"))
    assert_script(handler(), *OPENED, *said("WHAT", "500 5.5.1 No such command"))


def test_listener_that_offers_no_tls_does_not_start_unless_it_needs_none() -> None:
    with pytest.raises(ValueError, match="or write require_tls: false"):
        assert_script(handler(), (Started(), []), offers_tls=False)
    assert_script(handler(require_tls=False), (Started(), []), offers_tls=False)
