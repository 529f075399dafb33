"""Why a server could not be connected to: what it is called, and whose fault it is."""

import errno
import os

import pytest
from gaiod.handlers.proxy.failures import is_ours, reason_of, words_for
from gaiod.handlers.proxy.servers import Target

from gaiod import DeadlineExceeded, TlsError

TCP, UNIX = ("10.0.0.1", 1), "/run/db.sock"


def of(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("error", "target", "reason", "ours", "words"),
    [
        (of(errno.ECONNREFUSED), TCP, "refused", False, "Connection refused"),
        (of(errno.ENOENT), UNIX, "refused", False, "No such file or directory"),
        (of(errno.EAGAIN), UNIX, "refused", False, "its backlog is full"),
        (of(errno.EAGAIN), TCP, "refused", True, "Resource temporarily unavailable"),
        (of(errno.EADDRNOTAVAIL), TCP, "other", True, "Cannot assign requested address"),
        (of(errno.EMFILE), UNIX, "other", True, "Too many open files"),
        (of(errno.EHOSTUNREACH), TCP, "unreachable", False, "No route to host"),
        (DeadlineExceeded("late"), TCP, "timeout", False, "no answer in time"),
        (TlsError(errno.EPROTO, "TLS failed: it is late"), TCP, "tls", False, "TLS failed: it is late"),
    ],
)
def test_error_says_who_is_to_blame(error: Exception, target: Target, reason: str, ours: bool, words: str) -> None:
    assert (reason_of(error), is_ours(error, target), words_for(error, target)) == (reason, ours, words)
