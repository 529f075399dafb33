"""What the engine in use makes of a listener's TLS: asked of OpenSSL itself, before anybody is told that it works."""

from gaiod.config.errors import Refused
from gaiod.core.engine import open_tls, shares_tickets
from gaiod.settings import ClientCertificateSettings, TlsSettings
from gaiod.tls_options import server_tls

NEEDED = "the compiled engine, and OpenSSL 1.1.1 or later as a shared library"


def check_openssl(does: str) -> None:
    """Look whether sessions are made by OpenSSL itself, given what only that does.

    Raises:
        Refused: they are made by Python's `ssl`.
    """
    if not shares_tickets():
        raise Refused(f"needs {NEEDED}: nothing else {does}; remove it, or see gaiod version")


def check_tls(tls: TlsSettings) -> None:
    """Make what sessions would be made from.

    Raises:
        Refused: that fails; the message says why.
    """
    import ssl  # late, as it takes 10 ms, which only those who serve TLS should wait for

    try:
        open_tls(server_tls(tls))
    except (ssl.SSLError, ValueError, OSError) as error:
        why = getattr(error, "reason", None) or str(error)
        raise Refused(f"OpenSSL does not take it ({why}); see gaiod version for which OpenSSL that is") from error


def check_clients(clients: ClientCertificateSettings) -> None:
    """Look whether OpenSSL takes the authorities of clients, and what those have revoked.

    Raises:
        Refused: it does not; the message says why.
    """
    import ssl  # late, as above

    from gaiod.core.contexts import believe

    try:
        believe(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), clients.ca, clients.crl)
    except (ssl.SSLError, ValueError, OSError) as error:
        raise Refused(f"OpenSSL does not take it ({getattr(error, 'reason', None) or error}); write another") from error
